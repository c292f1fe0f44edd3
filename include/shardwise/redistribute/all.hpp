// redistribute_all: several tensors, of any element types and shapes, moved together: one exchange for all that meet along the same
// axes. Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/owned_move.hpp>
#include <shardwise/redistribute/packed_joint.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/redistribute/target.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

/// A tensor and where it is to go: `to<Shard<1>>(x)`, for `redistribute_all`.
template <class X, class Y>
struct MoveTo {
  X tensor;
};

/// One placement per mesh axis, or `On<"axis", P>`.
template <class... P, class T, std::size_t R, class Mesh, class... From>
  requires(sizeof...(P) > 0)
auto to(const BasicTensor<T, R, Distributed<Mesh, From...>>& x) {
  using X = BasicTensor<T, R, Distributed<Mesh, From...>>;
  (void)detail::check_target<X, P...>();
  return MoveTo<X, detail::TargetOf<X, P...>>{x};
}

namespace detail {

// One tensor of the call. What peers read of it: `in` and `out`.
template <bool Interleaved>
struct JointMove {
  JointMove(const OwnedMove<Interleaved>& m, const void* input, void* output)
      : move(m), in(static_cast<const std::byte*>(input)), out(static_cast<std::byte*>(output)),
        axes(m.meeting_axes()) {}

  OwnedMove<Interleaved> move;
  const std::byte* in;
  std::byte* out;
  std::uint32_t axes;  // none: done without the others
  std::size_t staged = 0;  // where its input begins in a staged exchange
};

// What all ranks must agree on, as one call.
template <bool Counted, bool Interleaved>
CallInfo joint_call(const JointMove<Interleaved>* moves, int count, std::uint32_t axes) {
  CallInfo joint;
  std::int64_t elements = 0;
  std::uint64_t hash = 1469598103934665603ull;
  const auto mix = [&](std::uint64_t v) { hash = (hash ^ v) * 1099511628211ull; };
  for (int i = 0; i < count; ++i) {
    if (moves[i].axes != axes) continue;
    const CallInfo call = Counted ? moves[i].move.counted_call() : moves[i].move.call();
    if (joint.collective == Collective::none) {
      joint.collective = call.collective;
      joint.dtype = call.dtype;
      joint.op = call.op;
    } else if (joint.collective != call.collective || joint.op != call.op) {
      joint.collective = Collective::all_to_all;
      joint.op = ReduceOp::sum;
    }
    joint.bytes += call.bytes;
    if (call.messages > joint.messages) joint.messages = call.messages;  // what comes from one rank comes together
    elements += call.shape.elements();
    mix(call.layout);
    mix(static_cast<std::uint64_t>(call.dtype));
    mix(static_cast<std::uint64_t>(call.op));
    for (int d = 0; d < call.shape.rank; ++d) mix(static_cast<std::uint64_t>(call.shape[d]));
  }
  joint.shape = Extents(Shape<1>{elements});
  joint.layout = hash;
  return joint;
}

// One exchange of all moves that meet along `axes`.
template <class Comm, bool Interleaved>
void exchange_jointly(const Comm& group, JointMove<Interleaved>* moves, int count, std::uint32_t axes) {
  using Joint = JointMove<Interleaved>;
  const CallInfo call = joint_call<PeerlessCommunicator<Comm>>(moves, count, axes);
  if constexpr (PeerlessCommunicator<Comm>) {
    group.count(call);
    for (int i = 0; i < count; ++i) {
      if (moves[i].axes != axes) continue;
      moves[i].move.pull_own(moves[i].in, moves[i].out);
      moves[i].move.complete(moves[i].out);
    }
    return;
  }
  std::size_t staged = 0;
  for (int i = 0; i < count; ++i)
    if (moves[i].axes == axes) {
      moves[i].staged = staged;
      staged += (moves[i].move.largest_input_bytes() + 63) / 64 * 64;  // the same on all ranks
      moves[i].move.prepare(moves[i].out);
    }
  if constexpr (ExchangesPacked<Comm>)
    if (!group.direct()) {
      List<Ref<PackedPart<Interleaved>>> parts;
      for (int i = 0; i < count; ++i)
        if (moves[i].axes == axes)
          parts.push_back(make_ref<PackedPart<Interleaved>>(moves[i].move, moves[i].in, moves[i].out));
      exchange_packed_parts<Interleaved>(group, call, parts);
      for (int i = 0; i < count; ++i)
        if (moves[i].axes == axes) moves[i].move.complete(moves[i].out);
      return;
    }
  const auto ranks = static_cast<std::size_t>(group.size());
  const Buffer lists(2 * ranks * sizeof(void*));
  const std::byte** in = lists.as<const std::byte*>();
  std::byte** out = lists.as<std::byte*>() + ranks;
  const auto for_each = [&](auto&& f) {
    for (int i = 0; i < count; ++i)
      if (moves[i].axes == axes) f(i, moves[i]);
  };
  // Small inputs, and inputs of ranks that see nothing of each other but what they offer, travel as one block.
  const bool small = staged <= Comm::staged_limit;
  if (small || !reads_all_memory<Comm>) {
    const Buffer packed(staged);
    for_each([&](int, const Joint& m) {
      if (const std::size_t n = m.move.input_bytes(); n > 0) std::memcpy(packed.data() + m.staged, m.in, n);
    });
    const auto body = [&](const auto& peers) {
      for_each([&](int, const Joint& m) {
        for (std::size_t r = 0; r < ranks; ++r) in[r] = peers.in[r] + m.staged;
        m.move.pull_from(in, m.out);
      });
    };
    if (small)
      group.exchange_staged(call, packed.data(), staged, body);
    else
      group.exchange(call, packed.data(), staged, nullptr, body);
  } else {
    group.exchange(call, moves, static_cast<std::size_t>(count) * sizeof(Joint), nullptr, [&](const auto& peers) {
      for_each([&](int i, const Joint& m) {
        for (std::size_t r = 0; r < ranks; ++r) {
          const Joint& theirs = reinterpret_cast<const Joint*>(peers.in[r])[i];
          in[r] = theirs.in;
          out[r] = theirs.out;
        }
        m.move.pull_from(in, out, m.out);
      });
    });
  }
  for_each([](int, const Joint& m) { m.move.complete(m.out); });
}

template <bool Interleaved, class Mesh>
void execute_jointly(const Mesh& mesh, JointMove<Interleaved>* moves, int count) {
  const auto exchange = [&](std::uint32_t axes) {
    if constexpr (mesh_on_host<Mesh>)
      exchange_jointly(mesh.group(axes), moves, count, axes);
    else
      DeviceExecutor<Interleaved>::exchange_jointly(mesh.group(axes), moves, count, axes,
                                                    joint_call<mesh_on_host<Mesh>>(moves, count, axes));
  };
  const auto alone = [&](const JointMove<Interleaved>& m) {
    if constexpr (mesh_on_host<Mesh>)
      m.move.move_alone(m.in, m.out);
    else
      DeviceExecutor<Interleaved>::move_alone(mesh, m);
  };
  for (int i = 0; i < count; ++i) {
    const std::uint32_t axes = moves[i].axes;
    if (axes == 0) alone(moves[i]);
    bool first = axes != 0;
    for (int j = 0; j < i; ++j) first = first && moves[j].axes != axes;
    if (first) exchange(axes);
  }
}

template <class X, class Y>
Y made_for(const MoveTo<X, Y>& move) {
  if constexpr (std::is_same_v<X, Y>)
    return move.tensor;
  else
    return make_tensor<typename Y::value_type, Y::rank, typename Y::layout_type>(move.tensor.impl()->global,
                                                                                 move.tensor.mesh());
}

template <class X, class Y>
void record_joint(Y& y, const MoveTo<X, Y>& move) {
  if constexpr (!std::is_same_v<X, Y>) record_redistribute(y, move.tensor);
}

template <class Mesh, class... M>
inline constexpr bool all_on = (std::is_same_v<Mesh, M> && ...);

}  // namespace detail

/// Moves several tensors of one mesh in one exchange: `auto [a, b] = redistribute_all(to<Shard<1>>(x), to<Replicate>(y));`.
///
/// What meets along the same mesh axes goes together, whatever its element types, shapes and placements; tensors that
/// meet along other axes take an exchange of their own each group, local moves none.
/// Moves: what `redistribute` of each one moves in one exchange. Needs, Gives: likewise, as a tuple in the order of the arguments;
/// a tensor that lies as wanted is itself. Always one exchange, also where `redistribute` would go axis by axis: what comes from
/// one rank comes in one message for all tensors, and the steps of different tensors would not meet. Gradient: each tensor's own, as in redistribute (not together).
/// Ranks: all of the mesh. Throws: as redistribute; `Error` where the tensors lie on different meshes. CommDebugMode
/// counts an exchange of different collectives as an all_to_all.
template <class... X, class... Y>
  requires(sizeof...(X) > 0)
std::tuple<Y...> redistribute_all(const MoveTo<X, Y>&... moves) {
  using Mesh = typename std::tuple_element_t<0, std::tuple<X...>>::Mesh;
  static_assert(
      detail::all_on<Mesh, typename X::Mesh...>,
      "shardwise::redistribute_all: [L1] the tensors of one call lie on one mesh; move those of another mesh in "
      "a call of their own");
  detail::check_communicator<typename Mesh::Communicator>();
  if constexpr (detail::all_on<Mesh, typename X::Mesh...>) {
    const Mesh& mesh = std::get<0>(std::tie(moves...)).tensor.mesh();
    SHARDWISE_REQUIRE(((moves.tensor.mesh() == mesh) && ...),
                      "shardwise::redistribute_all: the tensors lie on different meshes");
    // From the first to the last: the order in which memory is taken is the program's.
    std::tuple<Y...> results{detail::made_for(moves)...};
    constexpr bool interleaved = (detail::either_interleaved<X, Y> || ...);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (detail::record_joint(std::get<I>(results), moves), ...);  // what has no gradient is said before anything moves
      if (!mesh.is_member()) return;
      if constexpr (!detail::mesh_on_host<Mesh>)
        detail::DeviceExecutor<detail::mesh_on_host<Mesh>>::use(moves.tensor.impl()->buffer...);
      detail::JointMove<interleaved> joint[] = {{{detail::view_of<X, Y>(mesh), mesh.grid().coordinate.data(),
                                                  moves.tensor.impl()->global, dtype_of<typename X::value_type>},
                                                 moves.tensor.impl()->buffer.data(),
                                                 std::get<I>(results).impl()->buffer.data()}...};
      detail::execute_jointly(mesh, joint, static_cast<int>(sizeof...(X)));
    }(std::index_sequence_for<X...>());
    return results;
  }
}

}  // namespace shardwise
