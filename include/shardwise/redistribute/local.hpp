// The ways between plain tensors and distributed ones: from_local, to_local, full_tensor, distribute_tensor, each with
// its gradient. Layer: redistribute.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <shardwise/redistribute/packed_distribute.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

/// `{.src_data_rank = no_source}`: each rank takes its part of its own data, without communication.
inline constexpr int no_source = -1;

struct DistributeOptions {
  /// The rank, on each axis of the mesh, whose data win; `no_source`: everybody's own.
  int src_data_rank = 0;
};

/// Sizes that may be left out: `{.global_shape = {5, 7}}`, or a `Shape<R>`, or `std::nullopt`.
template <std::size_t R>
struct OptionalShape : std::optional<Shape<R>> {
  using std::optional<Shape<R>>::optional;
  template <std::integral... Size>
    requires(R > 0 && sizeof...(Size) == R)
  constexpr OptionalShape(Size... size)  // NOLINT: sizes are a shape
      : std::optional<Shape<R>>(Shape<R>{static_cast<std::int64_t>(size)...}) {}
};

template <std::size_t R>
struct FromLocalOptions {
  /// Sizes of the global tensor; left out: local size times axis size for each shard.
  OptionalShape<R> global_shape = {};
};

/// A placement whose gradient is declared: `from_local<WithGradient<Replicate, Partial<>>>(x, mesh)`. `G`: `Partial<>`
/// where each rank's gradient shall be a term that is summed elsewhere, else the default. PyTorch: `grad_placements`.
template <Placement P, Placement G>
struct WithGradient {
  using placement = P;
  using gradient = G;
};

namespace detail {

template <class P>
inline constexpr bool declares_gradient = false;
template <class P, class G>
inline constexpr bool declares_gradient<WithGradient<P, G>> = true;

template <class P>
struct declaration {
  using placement = P;
  template <std::size_t R>
  using gradient = GradientPlacement<Normalized<P, R>>;
};
template <class P, class G>
struct declaration<WithGradient<P, G>> {
  using placement = P;
  template <std::size_t R>
  using gradient = Normalized<G, R>;
};

// The gradient of a distributed tensor becomes the gradient of the part that it was made of: a pending sum is
// settled here, once, but on the axes of `left`, where the part's gradient is a term.
template <class Mesh, bool Interleaved = false>
struct FromLocalNode final : Node {
  using List = PlacementList<Mesh::ndim>;
  FromLocalNode(const Mesh& m, const List& list, const Extents& shape, std::uint32_t terms)
      : Node("from_local"), mesh(m), placements(list), global(shape), left(terms), module(trace_state().module) {}

  void backward(GradSlot& out) override {
    GradSlot& slot = *inputs[0];
    if (out.pending == left) {
      accumulate(slot, std::move(out.grad), 0);
      return;
    }
    const std::string_view before = std::exchange(trace_state().module, module);
    Buffer grad = space_on<Mesh>::allocated(static_cast<std::size_t>(slot.count) * size_of(slot.dtype));
    if constexpr (!mesh_on_host<Mesh>) DeviceExecutor<mesh_on_host<Mesh>>::use(out.grad);
    execute_placed<Interleaved>(mesh, arrived(placements, out.pending), arrived(placements, left), global, slot.dtype,
                                out.grad.data(), grad.data());
    trace_state().module = before;
    accumulate(slot, std::move(grad), 0);
  }

  Mesh mesh;
  List placements;
  Extents global;
  std::uint32_t left;
  std::string_view module;
};

// The gradient of a plain part is the gradient of the tensor, pending where it was declared so.
template <class = void>
struct ToLocalNode final : Node {
  explicit ToLocalNode(std::uint32_t declared) : Node("to_local"), pending(declared) {}
  void backward(GradSlot& out) override { accumulate(*inputs[0], std::move(out.grad), pending); }
  std::uint32_t pending;
};

// Two tensors made of one plain tensor add their gradients in the slot of the one that was made first.
template <std::size_t N>
constexpr std::uint64_t remembered_placements(const PlacementList<N>& placements) {
  std::uint64_t h = 0;
  for (const PlacementValue& p : placements) h = h * 8191 + static_cast<std::uint64_t>(placement_code(p));
  return h;
}

template <class Mesh>
Extents infer_global(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements, const Extents& local) {
  Extents global = local;
  for (std::size_t a = 0; a < Mesh::ndim; ++a)
    if (placements[a].is_split()) global[placements[a].dim] *= mesh.shape()[a];
  return global;
}

// Whether the shards are uneven: the same answer on all ranks.
template <class Mesh>
bool uneven(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements, const Extents& global) {
  for (int d = 0; d < global.rank; ++d) {
    std::int64_t ranks = 1;
    for (std::size_t a = 0; a < Mesh::ndim; ++a)
      if (placements[a].is_split(d))
        ranks *= mesh.shape()[a] * (placements[a].is_interleaved() ? placements[a].block : 1);
    if (global[d] % ranks != 0) return true;
  }
  return false;
}

// The part `x` of a tensor on a mesh, over values: one a kind of mesh is compiled. `asked`: the global sizes, or null.
// `left`: the axes on which the gradient of the part is a term.
template <bool Interleaved, class Mesh>
Ref<TensorImpl> part_of(TensorImpl& x, const Mesh& mesh, const PlacementList<Mesh::ndim>& placements,
                        const Extents* asked, std::size_t element, std::uint32_t left) {
  const std::uint64_t lies = remembered_placements(placements);
  const std::uint64_t key = lies * 31 + left;
  const bool returns = x.origin != nullptr && x.origin->mesh == mesh.identity() && x.origin->placements == lies;
  const Extents global = asked != nullptr ? *asked
                         : returns        ? x.origin->global
                                          : infer_global(mesh, placements, x.global);
  if (!mesh.is_member()) {
    const Extents none = local_sizes<Interleaved>(mesh, placements, global);
    auto y = share_impl(space_on<Mesh>::allocated(static_cast<std::size_t>(none.elements()) * element), global, none);
    // What is made of it is recorded as on the members, and leaves nothing in x. PyTorch: a new empty leaf.
    if (tape_state().enabled && x.slot != nullptr) {
      y->slot = make_slot(x.slot->dtype, none.elements(), true, 0);
      y->slot->memory = x.slot->memory;
    }
    return y;
  }
  auto y = share_impl(x.buffer, global, x.local);
  const bool record = tape_state().enabled && x.slot != nullptr;
  if (record)
    for (const auto& old : x.remembered)
      if (old.mesh == mesh.identity() && old.placements == key && old.global == global)
        if (auto slot = old.slot.lock(); slot != nullptr && slot->producer != nullptr) {  // not run yet
          y->slot = std::move(slot);
          return y;
        }
  if (asked != nullptr) {
    const Extents local = local_sizes<Interleaved>(mesh, placements, global);
    SHARDWISE_REQUIRE(local == x.local,
                      text("shardwise::from_local: a part of shape ", x.global, " does not fit: rank ",
                           mesh.grid().coordinate[0], " of a tensor of shape ", global, " placed ",
                           to_string(placements), " holds ", local),
                      ShapeError);
  }
  if (record) {
    auto node = make_node<FromLocalNode<Mesh, Interleaved>>(mesh, placements, global, left);
    node->inputs.push_back(x.slot);
    y->slot = make_slot(x.slot->dtype, x.local.elements(), false, not_first_mask(mesh));
    y->slot->memory = x.slot->memory;
    y->slot->producer = std::move(node);
    for (std::size_t i = x.remembered.size(); i-- > 0;)
      if (x.remembered[i].slot.expired()) x.remembered.remove(i);
    x.remembered.push_back({mesh.identity(), key, global, y->slot});
  }
  return y;
}

template <class G, class P>
inline constexpr bool gradient_declaration_fits = std::is_same_v<G, GradientPlacement<P>>;
template <class P>
inline constexpr bool gradient_declaration_fits<Partial<Sum>, P> = !placement_value<P>.is_split();

template <class... G, class X>
auto to_local_of(const X& x) {
  using T = typename X::value_type;
  using Layout = local_layout_of<typename X::layout_type>;
  auto local = share_tensor<T, X::rank, Layout>(x.impl()->buffer, x.impl()->local, x.impl()->local,
                                                typename MeshHandle<Layout>::Mesh{});
  if (x.mesh_state().is_member() && uneven(x.mesh_state(), X::placements, x.impl()->global))
    local.impl()->origin =
        make_ref<OriginOn<typename X::Mesh>>(x.mesh_state(), remembered_placements(X::placements), x.impl()->global);
  if (wants_grad(x)) {
    constexpr PlacementList<sizeof...(G)> declared{placement_value<G>...};
    auto node = make_node<ToLocalNode<>>(pending_axes(declared));
    node->inputs.push_back(x.impl()->slot);
    record(local, std::move(node));
  }
  return local;
}

template <class Y, std::uint32_t left, class T, std::size_t R, class Space, class Mesh>
Y from_local_to(const BasicTensor<T, R, Local<Space>>& x, const Mesh& mesh, const FromLocalOptions<R>& options) {
  constexpr bool here = std::is_same_v<Space, space_on<Mesh>>;
  constexpr bool goes_there = is_host<Space> && !mesh_on_host<Mesh>;
  static_assert(
      here || goes_there,
      "shardwise::from_local: [X2] the part lies on a device, the tensors of the mesh on the host; bring it there with to_host(x)");
  static_assert(partials_mix(Y::placements),
                "shardwise::from_local: [P4] pending reductions of one tensor are alike; only Sum and Avg mix");
  constexpr bool interleaved = is_interleaved(Y::placements);
  Extents global;
  if (options.global_shape) global = Extents(*options.global_shape);
  const Extents* const asked = options.global_shape ? &global : nullptr;
  if constexpr (here) {
    return Y(part_of<interleaved>(*x.impl(), mesh, Y::placements, asked, sizeof(T), left), mesh);
  } else if constexpr (goes_there) {
    const Ref<TensorImpl> there = DeviceExecutor<mesh_on_host<Mesh>>::brought(mesh, *x.impl(), dtype_of<T>);
    Y y(part_of<interleaved>(*there, mesh, Y::placements, asked, sizeof(T), left), mesh);
    if (there->slot != nullptr) x.impl()->remembered = std::move(there->remembered);
    return y;
  } else {
    return Y();
  }
}

}  // namespace detail

/// A distributed tensor made of every rank's part, which is shared, not copied.
///
/// Without a shape the global size is the local size times the axis size, for each shard (a part that `to_local()` gave, or what
/// elementwise operators made of it, has the size that it came from where it returns); no communication checks it, so
/// ranks whose sizes disagree get a `MismatchError` at the first collective. With a shape, a part that does not fit is a
/// `ShapeError` at once. `Replicate` and `Partial` parts are taken at their word.
/// A part on the host of a tensor on devices is copied to this rank's device, and its gradient back, for which the host waits.
/// Gradient: a pending sum is reduced, once for all tensors made of `x` on this mesh with these placements; it stays where it is
/// declared so, `WithGradient<P, Partial<>>` in place of P: then the gradients of the parts are the terms.
/// PyTorch: `DTensor.from_local`.
template <class... P, class T, std::size_t R, class Space, class Comm, Name... Axes>
auto from_local(const BasicTensor<T, R, Local<Space>>& x, const DeviceMesh<Comm, Axes...>& mesh,
                const FromLocalOptions<R>& options = {}) {
  using Mesh = DeviceMesh<Comm, Axes...>;
  static_assert(sizeof...(P) == Mesh::ndim, "shardwise::from_local: [P1] one placement per mesh axis");
  static_assert(
      (shard_dim_in_range<P, R> && ...),
      "shardwise::from_local: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  if constexpr (sizeof...(P) == Mesh::ndim && (shard_dim_in_range<P, R> && ...)) {
    return detail::from_local_to<DTensor<T, R, Mesh, Normalized<P, R>...>, 0>(x, mesh, options);
  } else {
    return x;
  }
}
template <class... P, class T, std::size_t R, class Space, class Comm, Name... Axes>
  requires(detail::declares_gradient<P> || ...)
auto from_local(const BasicTensor<T, R, Local<Space>>& x, const DeviceMesh<Comm, Axes...>& mesh,
                const FromLocalOptions<R>& options = {}) {
  using Mesh = DeviceMesh<Comm, Axes...>;
  static_assert(sizeof...(P) == Mesh::ndim, "shardwise::from_local: [P1] one placement per mesh axis");
  constexpr bool exist = (shard_dim_in_range<typename detail::declaration<P>::placement, R> && ...);
  static_assert(
      exist, "shardwise::from_local: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  if constexpr (sizeof...(P) == Mesh::ndim && exist) {
    using Y = DTensor<T, R, Mesh, Normalized<typename detail::declaration<P>::placement, R>...>;
    static_assert(
        (detail::gradient_declaration_fits<typename detail::declaration<P>::template gradient<R>,
                                           Normalized<typename detail::declaration<P>::placement, R>> &&
         ...),
        "shardwise::from_local: [L1] the gradient of a shard is sharded alike, of anything else Replicate or Partial<>");
    constexpr detail::PlacementList<sizeof...(P)> gradients{
        placement_value<typename detail::declaration<P>::template gradient<R>>...};
    return detail::from_local_to<Y, detail::pending_axes(gradients)>(x, mesh, options);
  } else {
    return x;
  }
}

/// This rank's part as a plain tensor that shares its elements. `G...`, one per mesh axis, says what the gradient of
/// the part means where the default (`Shard` for a shard, `Replicate` otherwise) is not it: `Partial<>` where the ranks
/// go on to use a replicated value differently. PyTorch: `to_local(grad_placements=...)`.
template <class... G, class T, std::size_t R, class Mesh, class... P>
auto to_local(const BasicTensor<T, R, Distributed<Mesh, P...>>& x) {
  if constexpr (sizeof...(G) == 0) {
    return detail::to_local_of<>(x);
  } else {
    static_assert(sizeof...(G) == sizeof...(P), "shardwise::to_local: [P1] one gradient placement per mesh axis");
    static_assert(
        (detail::gradient_declaration_fits<Normalized<G, R>, P> && ...),
        "shardwise::to_local: [L1] the gradient of a shard is sharded alike, of anything else Replicate or Partial<>");
    return detail::to_local_of<Normalized<G, R>...>(x);
  }
}

namespace detail {

template <class P>
using ReplicateFor = Replicate;

template <class T, std::size_t R, class Mesh, class... P>
auto gather_full_of(const BasicTensor<T, R, Distributed<Mesh, P...>>& x) {
  return to_local_of<>(redistribute<ReplicateFor<P>...>(x));
}
template <class X>
auto gather_full(const X& x) {
  return gather_full_of(x);
}

}  // namespace detail

namespace detail {

// Fills `out`, this rank's part, from the whole tensor of the source rank, over values. Ranks: all of the mesh.
template <bool Interleaved, class Mesh>
void distribute(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements, const Extents& global, DType dtype,
                int source, const void* in, void* out, std::size_t bytes) {
  const PlacementList<Mesh::ndim> whole{};
  if (source != no_source) {
    CallInfo call;
    call.collective = Collective::broadcast;
    call.root = 0;
    for (std::size_t a = 0; a < Mesh::ndim; ++a) {
      const std::int64_t size = mesh.shape()[a];
      SHARDWISE_REQUIRE(source >= 0 && source < size,
                        text("shardwise::distribute_tensor: src_data_rank ", source, " is not on the axis \"",
                             Mesh::names[a].view(), "\" of ", size, " ranks"));
      call.root = call.root * static_cast<int>(size) + source;
      if (placements[a].is_split()) call.collective = Collective::scatter;
    }
    if (mesh.size() > 1) {
      const auto& group = mesh.group((1u << Mesh::ndim) - 1u);
      call.dtype = dtype;
      call.shape = global;
      call.layout = fingerprint(whole, placements, mesh.shape());
      call.bytes = group.rank() == call.root ? 0 : static_cast<std::int64_t>(bytes);
      if constexpr (PeerlessCommunicator<typename Mesh::Communicator>) {
        group.count(call);
        return execute_placed<Interleaved>(mesh, whole, placements, global, dtype, in,
                                           out);  // local: out of the own copy
      }
      if constexpr (!mesh_on_host<Mesh>) {
        DeviceExecutor<Interleaved>::distribute(mesh, placements, global, call, in, out, bytes);
      } else if constexpr (!tensors_move_over<typename Mesh::Communicator>) {
        check_communicator<typename Mesh::Communicator>();
      } else {
        // Where nothing is split every rank gets the whole, passed on from rank to rank where there are many.
        if constexpr (ExchangesPacked<typename Mesh::Communicator>)
          if (!group.direct() && call.collective == Collective::scatter)
            return distribute_packed<Interleaved>(group, grid_view(mesh, whole), grid_view(mesh, placements), global,
                                                  dtype, call, in, out, bytes);
        const std::size_t all_bytes = static_cast<std::size_t>(global.elements()) * size_of(dtype);
        group.exchange(call, in, group.rank() == call.root ? all_bytes : 0, out, [&](const auto& peers) {
          const OneInput from_root{peers.in[call.root]};
          if constexpr (Interleaved)
            Remap(grid_view(mesh, whole), grid_view(mesh, placements), global, dtype).pull(from_root, out);
          else
            Move<Mesh::ndim>(whole, placements, mesh.shape(), mesh.grid().coordinate, global, dtype)
                .pull(from_root, out);
        });
      }
      return;
    }
  }
  execute_placed<Interleaved>(mesh, whole, placements, global, dtype, in, out);
}

}  // namespace detail

/// Distributes a tensor that one rank, or every rank, holds whole: `distribute_tensor<Shard<0>>(x, mesh)`. One that lies on the host
/// may go to a mesh of devices.
///
/// Moves: to each rank its own part from the rank whose coordinate is `src_data_rank` on every axis; nothing with
/// `no_source`. Needs: a leaf of the same shape on all ranks. Gives: a leaf that requires a gradient where `x` does.
/// Ranks: all of the mesh. Throws: `Error` for a result of an operator or a source outside an axis, CommError and its kinds.
/// PyTorch: `distribute_tensor`.
template <class... P, class T, std::size_t R, class Space, class Comm, Name... Axes>
auto distribute_tensor(const BasicTensor<T, R, Local<Space>>& x, const DeviceMesh<Comm, Axes...>& mesh,
                       const DistributeOptions& options = {}) {
  using Mesh = DeviceMesh<Comm, Axes...>;
  static_assert(sizeof...(P) == Mesh::ndim, "shardwise::distribute_tensor: [P1] one placement per mesh axis");
  static_assert(
      (shard_dim_in_range<P, R> && ...),
      "shardwise::distribute_tensor: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  static_assert((partial_is_reachable<Replicate, P> && ...),
                "shardwise::distribute_tensor: [P3] only a pending sum can be made of a value; use Replicate or Shard");
  if constexpr (sizeof...(P) == Mesh::ndim && (shard_dim_in_range<P, R> && ...) &&
                (partial_is_reachable<Replicate, P> && ...)) {
    using Y = DTensor<T, R, Mesh, Normalized<P, R>...>;
    SHARDWISE_REQUIRE(x.is_leaf(),
                      "shardwise::distribute_tensor: this tensor is the result of an operator; detach(x) gives a leaf, "
                      "from_local keeps the gradient");
    const detail::Extents& global = x.impl()->global;
    Y y = detail::make_tensor<T, R, typename Y::layout_type>(global, mesh);
    if (mesh.is_member()) {
      constexpr bool interleaved = detail::is_interleaved(Y::placements);
      if constexpr (detail::mesh_on_host<Mesh>)
        detail::distribute<interleaved>(mesh, Y::placements, global, dtype_of<T>, options.src_data_rank, x.data(),
                                        y.data(), y.bytes());
      else
        detail::DeviceExecutor<detail::mesh_on_host<Mesh>>::template distribute_tensor<interleaved>(
            mesh, Y::placements, x, y, options.src_data_rank);
    }
    if constexpr (FieldElement<T>)
      if (x.requires_grad()) y.requires_grad(true);
    return y;
  } else {
    return x;
  }
}

/// A tensor that is distributed already, as it is wanted: itself. Anything else says `redistribute`.
/// Throws `Error` where the mesh is another one. PyTorch: `distribute_tensor` of a DTensor.
template <class... P, class T, std::size_t R, class Mesh, class... From>
auto distribute_tensor(const BasicTensor<T, R, Distributed<Mesh, From...>>& x, const Mesh& mesh,
                       const DistributeOptions& = {}) {
  static_assert(
      std::is_same_v<Distributed<Mesh, Normalized<P, R>...>, Distributed<Mesh, From...>>,
      "shardwise::distribute_tensor: [D1] the tensor is distributed already, with other placements; use redistribute<P...>(x)");
  SHARDWISE_REQUIRE(x.mesh() == mesh, "shardwise::distribute_tensor: the tensor lies on another mesh already");
  return x;
}

}  // namespace shardwise
