// The executor: moves one rank's part of a tensor from any placements to any others, over values, in at most
// one exchange. A transition is an intersection of boxes plus a pending reduction. Layer: redistribute.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/mesh/device_mesh.hpp>
#include <shardwise/placement/move.hpp>
#include <shardwise/placement/planner.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/packed_move.hpp>
#include <shardwise/redistribute/pull.hpp>

namespace shardwise::detail {

// (Not an overload of fingerprint(counts): whether a view converts to a span is dear to find out.)
constexpr std::uint64_t fingerprint_of(const MoveView& move) {
  std::uint64_t h = 1469598103934665603ull;
  const auto mix = [&](std::uint64_t v) { h = (h ^ v) * 1099511628211ull; };
  for (int a = 0; a < move.axes; ++a) {
    mix(static_cast<std::uint64_t>(placement_code(move.from[a])));
    mix(static_cast<std::uint64_t>(placement_code(move.to[a])));
    mix(static_cast<std::uint64_t>(move.mesh[a]));
  }
  return h;
}
template <std::size_t N>
constexpr std::uint64_t fingerprint(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh) {
  return fingerprint_of(MoveView{from.data(), to.data(), mesh.data(), static_cast<int>(N)});
}

inline CallInfo call_of(const MovePlan& plan, const Extents& global, DType dtype, std::int64_t received) {
  CallInfo info;
  info.collective = plan.kind().collective;
  info.dtype = dtype;
  info.op = plan.kind().op;
  info.shape = global;
  info.layout = fingerprint_of(plan.view());
  info.bytes = received * static_cast<std::int64_t>(size_of(dtype));
  return info;
}
inline CallInfo call_of(const MovePlan& plan, const Extents& global, DType dtype) {
  return call_of(plan, global, dtype, plan.received());
}

// A communicator without peers counts what would be communicated: no body of an exchange runs.
template <class Comm>
concept PeerlessCommunicator = requires { requires Comm::peerless; };

// A communicator that has the collectives alone lays out a mesh, but tensors do not move over it. Said once, where moves begin.
template <class Comm>
inline constexpr bool tensors_move_over = Comm::memory_space != MemorySpace::host || PeerlessCommunicator<Comm> ||
                                          (ExchangesInPlace<Comm> && ExchangesStaged<Comm>);
template <class Comm>
constexpr void check_communicator() {
  static_assert(
      tensors_move_over<Comm>,
      "shardwise::redistribute: [P9] tensors move over exchanges, which this communicator has not: make the mesh of "
      "OverCollectives(world), from <shardwise/comm/over_collectives.hpp>; see the concept DirectAccessCommunicator");
}

// With messages. In a group of more ranks than threads come in, by the planner's closed form.
inline CallInfo counted_call_of(const MovePlan& plan, const std::int64_t* me, const Extents& global, DType dtype) {
  Coordinate at{};
  for (int a = 0; a < plan.view().axes; ++a) at[a] = me[a];
  const Received r = received_by(plan.view(), plan.kind(), at, global);
  CallInfo info = call_of(plan, global, dtype, plan.group_size() > max_sharers ? r.elements : plan.received());
  info.messages = r.messages;
  return info;
}

// A move by itself, for who brings the inputs otherwise. Refers to the lists.
template <std::size_t N>
class Move {
 public:
  Move(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh, const Shape<N>& me,
       const Extents& global, DType dtype)
      : plan_({from.data(), to.data(), mesh.data(), static_cast<int>(N)}, me.data(), global), dtype_(dtype) {}

  const MoveKind& kind() const { return plan_.kind(); }
  const Box& wanted() const { return plan_.wanted(); }
  std::int64_t received() const { return plan_.received(); }

  // in[r] is the local tensor of rank r of the group.
  template <class In>
  void pull(const In& in, void* out) const {
    fill_zero(plan_, dtype_, out);
    if constexpr (std::is_convertible_v<In, const std::byte* const*>)
      detail::pull(plan_, dtype_, Inputs{in, nullptr}, out);
    else
      detail::pull(plan_, dtype_, Inputs{nullptr, in[0]}, out);
  }

 private:
  MovePlan plan_;
  DType dtype_;
};

template <class Type>
void divide(Type dtype, void* data, std::int64_t n, std::int64_t by) {
  if (by != 1) divide_blocks(reduce_kernels_of(dtype), data, n, static_cast<int>(by));
}

// Without communication: only this rank's own part is read.
template <class Type>
void move_locally(const MovePlan& plan, Type dtype, const void* in, void* out) {
  const std::int64_t elements = plan.wanted().size.elements();
  if (!plan.kind().changes) {
    if (in != out && elements > 0) std::memcpy(out, in, static_cast<std::size_t>(elements) * size_of(dtype));
    return;
  }
  fill_zero(plan, dtype, out);
  if (elements > 0) pull(plan, dtype, Inputs{nullptr, static_cast<const std::byte*>(in)}, out);
}

// A communicator that says what its messages cost is planned for. Where ranks read each other's memory there are no messages.
template <class Comm>
concept PricedCommunicator = requires(const Comm& c) {
  { c.cost_model() } -> std::same_as<CostModel>;
};

// One exchange over the axes that take part; what is at most `staged_limit` bytes on every rank is copied first. Compiled once
// per kind of communicator.
template <class Comm>
void move_over(const Comm& group, const MovePlan& plan, const std::int64_t* me, const Extents& global, DType dtype,
               const void* in, void* out, std::size_t staged_limit = Comm::staged_limit) {
  const MoveView& view = plan.view();
  if constexpr (PeerlessCommunicator<Comm>) {
    group.count(counted_call_of(plan, me, global, dtype));
    pull_own(plan, me, global, dtype, in, out);
    return divide(dtype, out, plan.wanted().size.elements(), averaged_over(view));
  }
  SHARDWISE_REQUIRE(plan.terms() <= max_ranks_reduced,
                    "shardwise::redistribute: more than 1024 ranks meet in one reduction; reduce axis by axis");
  // Ranks meet over an empty tensor too: one that took its part for empty, while others did not, is found out here.
  const CallInfo call = call_of(plan, global, dtype);
  const auto bytes = [&](const std::int64_t* rank) {
    return static_cast<std::size_t>(box_of(view.from, view.mesh, rank, view.axes, global).size.elements()) *
           size_of(dtype);
  };
  constexpr std::int64_t first[max_axes] = {};  // no rank puts in more than the first
  fill_zero(plan, dtype, out);  // before others may store into it
  if constexpr (ExchangesPacked<Comm>)
    if (!group.direct()) {
      move_packed(group, plan, call, global, dtype, in, out);
      return divide(dtype, out, plan.wanted().size.elements(), averaged_over(view));
    }
  if (bytes(first) <= staged_limit) {
    group.exchange_staged(call, in, bytes(me),
                          [&](const auto& peers) { pull(plan, dtype, Inputs{peers.in, nullptr}, out); });
  } else {
    bool halfway = false;
    group.exchange(call, in, bytes(me), out, [&](const auto& peers) {
      const Inputs inputs{peers.in, nullptr};
      if (!plan.shares_in_place()) return pull(plan, dtype, inputs, out);
      if (peers.out != nullptr) return pull_shared(plan, dtype, inputs, peers.out);
      pull_share(plan, dtype, inputs, out);
      halfway = true;
    });
    if (halfway) {
      CallInfo rest = call;
      rest.bytes = CallInfo::part_of_another;
      const auto out_bytes = static_cast<std::size_t>(plan.wanted().size.elements()) * size_of(dtype);
      group.exchange(rest, out, out_bytes, nullptr, [&](const auto& peers) {
        pull_shares_of_others(plan, global, dtype, Inputs{peers.in, nullptr}, out);
      });
    }
  }
  divide(dtype, out, plan.wanted().size.elements(), averaged_over(view));
}

template <class Mesh>
CostModel cost_on(const Mesh& mesh, std::uint32_t axes = (1u << Mesh::ndim) - 1u) {
  if constexpr (PricedCommunicator<typename Mesh::Communicator>)
    return mesh.is_member() ? mesh.group(axes).cost_model() : CostModel();
  else
    return shared_memory_cost;
}

// Fills `out`, this rank's part of `to`, from everybody's part of `from`, in at most one exchange. The buffers do not overlap.
//
// Ranks: all of the mesh. `in` may be read by others until the call returns, never after.
template <class Mesh>
void execute_step(const Mesh& mesh, const MoveView& view, const Extents& global, DType dtype, const void* in,
                  void* out) {
  if (!mesh.is_member()) return;
  const std::int64_t* me = mesh.grid().coordinate.data();
  const MovePlan plan(view, me, global);
  if (plan.kind().collective == Collective::none)
    move_locally(plan, dtype, in, out);
  else
    move_over(mesh.group(plan.kind().axes), plan, me, global, dtype, in, out);
}

// The same, step by step as the plan says. An average is divided at the end, as in one exchange: integers round once.
template <class Mesh>
void execute_plan(const Mesh& mesh, RedistributePlan plan, const Extents& global, DType dtype, const void* in,
                  void* out) {
  constexpr int n = static_cast<int>(Mesh::ndim);
  if (!mesh.is_member()) return;
  const std::int64_t* me = mesh.grid().coordinate.data();
  std::int64_t divisor = 1;
  if (plan.axis_by_axis) divisor = averaged_over({plan[0].from, plan[plan.size() - 1].to, plan.mesh, n});
  Buffer between[2];
  std::int64_t elements = 0;
  for (int i = 0; i < plan.size(); ++i) {
    RedistributeStep& step = plan.steps[i];
    for (int a = 0; a < n && divisor > 1; ++a)
      for (PlacementValue* p : {&step.from[a], &step.to[a]})
        if (p->is_partial()) p->op = ReduceOp::sum;
    elements = box_of(step.to, plan.mesh, me, n, global).size.elements();
    void* target = out;
    if (i + 1 < plan.size()) {
      between[i % 2] = Buffer(static_cast<std::size_t>(elements) * size_of(dtype));
      target = between[i % 2].data();
    }
    execute_step(mesh, {step.from, step.to, plan.mesh, n}, global, dtype, in, target);
    in = target;
  }
  divide(dtype, out, elements, divisor);
}

// From placements to placements as the planner has it: in one exchange, unless a communicator that prices its messages has
// fewer of them axis by axis.
template <class Mesh>
void execute(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
             const Extents& global, DType dtype, const void* in, void* out) {
  static_assert(Mesh::ndim <= max_axes, "shardwise::redistribute: [P6] tensors lie on meshes of at most 8 axes");
  const MoveView view{from.data(), to.data(), mesh.shape().data(), static_cast<int>(Mesh::ndim)};
  if constexpr (PricedCommunicator<typename Mesh::Communicator> && Mesh::ndim > 1) {
    if (mesh.is_member() && move_kind(view).axes != 0) {
      const RedistributePlan steps =
          plan(view, &global, {static_cast<std::int64_t>(size_of(dtype)), cost_on(mesh, move_kind(view).axes)});
      if (steps.size() > 1) return execute_plan(mesh, steps, global, dtype, in, out);
    }
  }
  execute_step(mesh, view, global, dtype, in, out);
}

// What moves tensors whose parts lie on devices: in device/, which redistribute/ does not know.
template <bool Interleaved>
struct DeviceExecutor {
  static_assert(
      Interleaved && !Interleaved,
      "shardwise::redistribute: [X1] these tensors lie on devices; include <shardwise/device/redistribute.hpp>, which "
      "moves them there");
};

// A pending gradient is the move from Partial to Replicate on one axis: no second all_reduce is compiled for it.
template <class Mesh>
void sum_over_axis(const Mesh& mesh, int axis, DType dtype, void* data, std::int64_t count) {
  if constexpr (!mesh_on_host<Mesh>) {
    DeviceExecutor<mesh_on_host<Mesh>>::sum_over_axis(mesh, axis, dtype, data, count);
  } else if constexpr (!tensors_move_over<typename Mesh::Communicator>) {
    check_communicator<typename Mesh::Communicator>();
  } else {
    PlacementList<Mesh::ndim> from{};
    from[static_cast<std::size_t>(axis)] = partial_value();
    const auto bytes = static_cast<std::size_t>(count) * size_of(dtype);
    Buffer sum(bytes);
    execute(mesh, from, PlacementList<Mesh::ndim>{}, Extents(Shape<1>{count}), dtype, data, sum.data());
    if (bytes > 0) std::memcpy(data, sum.data(), bytes);
  }
}

}  // namespace shardwise::detail
