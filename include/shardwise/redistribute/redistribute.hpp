// redistribute: the differentiable move from any placements to any others, chosen by the compiler, done in at
// most one exchange. Layer: redistribute.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <shardwise/base/memory.hpp>
#include <shardwise/comm/trace.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/remap.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

/// Changes one axis: `redistribute<On<"tp", Replicate>>(x)`.
template <Name Axis, Placement P>
struct On {
  static constexpr Name axis = Axis;
  using placement = P;
};

namespace detail {

template <class P>
inline constexpr bool is_on = false;
template <Name A, Placement P>
inline constexpr bool is_on<On<A, P>> = true;

// Sum and average may be pending together, other reductions only with themselves (PyTorch: DS-7).
template <std::size_t N>
constexpr bool partials_mix(const PlacementList<N>& list) {
  bool linear = false;
  bool other = false;
  ReduceOp op = ReduceOp::sum;
  for (const PlacementValue& p : list) {
    if (!p.is_partial()) continue;
    if (p.op == ReduceOp::sum || p.op == ReduceOp::avg) {
      linear = true;
    } else {
      if (other && op != p.op) return false;
      other = true;
      op = p.op;
    }
  }
  return !(linear && other);
}

// What every tensor type on a mesh must satisfy; `Where` names the public function in the message.
template <class Mesh, std::size_t R, class... P>
constexpr void check_placements() {
  static_assert(
      sizeof...(P) == Mesh::ndim,
      "shardwise::redistribute: [P1] one placement per mesh axis; write as many as the mesh has axes, or On<\"axis\", P>");
  static_assert(
      (shard_dim_in_range<P, R> && ...),
      "shardwise::redistribute: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  static_assert(partials_mix(PlacementList<sizeof...(P)>{placement_value<P>...}),
                "shardwise::redistribute: [P4] pending reductions of one tensor are alike; only Sum and Avg mix");
}

// How the gradient that arrived lies: as the placement says, or pending on some axes.
template <std::size_t N>
constexpr PlacementList<N> arrived(PlacementList<N> list, std::uint32_t pending) {
  for (std::size_t a = 0; a < N; ++a) {
    if (list[a].is_split()) continue;
    list[a] = (pending >> a & 1u) != 0 ? partial_value() : replicate_value();
  }
  return list;
}

// How the gradient of the input must lie. A pending sum that the move did not touch stays pending: it adds up
// further and is settled once, where it is needed.
template <std::size_t N>
constexpr PlacementList<N> needed(const PlacementList<N>& from, const PlacementList<N>& to, PlacementList<N> gradient) {
  for (std::size_t a = 0; a < N; ++a) {
    if (from[a].is_split())
      gradient[a] = from[a];
    else if (to[a].is_split() || (from[a].is_partial() && !to[a].is_partial()))
      gradient[a] = replicate_value();
  }
  return gradient;
}

template <std::size_t N>
constexpr std::uint32_t pending_axes(const PlacementList<N>& list) {
  std::uint32_t mask = 0;
  for (std::size_t a = 0; a < N; ++a)
    if (list[a].is_partial()) mask |= 1u << a;
  return mask;
}

template <class Mesh>
void divide_on(DType dtype, void* data, std::int64_t n, std::int64_t by) {
  if constexpr (mesh_on_host<Mesh>)
    divide(dtype, data, n, by);
  else
    DeviceExecutor<mesh_on_host<Mesh>>::divide(dtype, data, n, by);
}

// The backward of a move is the transposed move, at the module that asked for it.
template <class Mesh, bool Interleaved = false>
struct RedistributeNode final : Node {
  using List = PlacementList<Mesh::ndim>;
  RedistributeNode(const Mesh& m, const List& source, const List& target, const Extents& shape)
      : Node("redistribute"), mesh(m), from(source), to(target), global(shape), module(trace_state().module) {}

  void backward(GradSlot& out) override {
    GradSlot& slot = *inputs[0];
    const List have = arrived(to, out.pending);
    const List want = needed(from, to, have);
    const std::int64_t divisor = averaged_over(from, to, mesh.shape());
    if (have == want && divisor == 1) {
      accumulate(slot, std::move(out.grad), pending_axes(want));
      return;
    }
    const std::string_view before = std::exchange(trace_state().module, module);
    Buffer grad = space_on<Mesh>::allocated(static_cast<std::size_t>(slot.count) * size_of(slot.dtype));
    if constexpr (!mesh_on_host<Mesh>) DeviceExecutor<mesh_on_host<Mesh>>::use(out.grad);
    execute_placed<Interleaved>(mesh, have, want, global, slot.dtype, out.grad.data(), grad.data());
    trace_state().module = before;
    divide_on<Mesh>(slot.dtype, grad.data(), slot.count, divisor);
    accumulate(slot, std::move(grad), pending_axes(want));
  }

  Mesh mesh;
  List from;
  List to;
  Extents global;
  std::string_view module;
};

template <std::size_t N>
constexpr bool has_gradient(const PlacementList<N>& list) {
  for (const PlacementValue& p : list)
    if (p.is_partial() && p.op != ReduceOp::sum && p.op != ReduceOp::avg) return false;
  return true;
}

template <class A, class B>
inline constexpr bool either_interleaved = is_interleaved(A::placements) || is_interleaved(B::placements);

// y is x, moved.
template <class Y, class X>
void record_redistribute(Y& y, const X& x) {
  if (!wants_grad(x)) return;
  SHARDWISE_REQUIRE(
      has_gradient(X::placements),
      "shardwise::redistribute: a pending maximum, minimum or product has no gradient; detach(x) or use NoGrad");
  auto node = make_node<RedistributeNode<typename X::Mesh, either_interleaved<X, Y>>>(x.mesh(), X::placements,
                                                                                      Y::placements, x.impl()->global);
  node->inputs.push_back(x.impl()->slot);
  record(y, std::move(node));
}

template <class Target, class X>
Target redistribute_to(const X& x) {
  Target y = make_tensor<typename X::value_type, X::rank, typename Target::layout_type>(x.impl()->global, x.mesh());
  if constexpr (!mesh_on_host<typename X::Mesh>) DeviceExecutor<mesh_on_host<typename X::Mesh>>::use(x.impl()->buffer);
  execute_placed<either_interleaved<X, Target>>(x.mesh(), X::placements, Target::placements, x.impl()->global,
                                                dtype_of<typename X::value_type>, x.impl()->buffer.data(),
                                                y.impl()->buffer.data());
  record_redistribute(y, x);
  return y;
}

template <class X, class... P>
using Redistributed = DTensor<typename X::value_type, X::rank, typename X::Mesh, Normalized<P, X::rank>...>;

// The placements of X with one axis changed.
template <class X, Name Axis, class P>
constexpr auto with_axis() {
  auto list = X::placements;
  list[X::Mesh::template index<Axis>()] = placement_value<Normalized<P, X::rank>>;
  return list;
}

template <class From, class To>
inline constexpr bool all_redistributable = false;
template <class M1, class... From, class M2, class... To>
inline constexpr bool all_redistributable<Distributed<M1, From...>, Distributed<M2, To...>> =
    (partial_is_reachable<From, To> && ...);

template <class Target, class X>
Target move_or_same(const X& x) {
  static_assert(
      all_redistributable<typename X::layout_type, typename Target::layout_type>,
      "shardwise::redistribute: [P3] the target is Partial where the source is not; redistribute to Replicate or Shard, "
      "or say as_partial<Op>(x), or from_local<Partial<Op>>(x.to_local(), mesh) where every rank's part is a term");
  if constexpr (std::is_same_v<Target, X>)
    return x;
  else if constexpr (all_redistributable<typename X::layout_type, typename Target::layout_type>)
    return redistribute_to<Target>(x);
  else
    return Target();
}

}  // namespace detail

/// Moves a tensor to other placements, one per mesh axis: `redistribute<Shard<1>>(x)`.
///
/// Moves: what the rank needs and does not hold, at most once over the network (a reduction: its terms).
/// Needs: the local part that the source placements say; empty and uneven shards included.
/// Gives: the local part that `P...` says, contiguous; x itself where the placements are the same.
/// Gradient: the transposed move; a pending gradient is settled here, an untouched axis stays pending.
/// Ranks: all of the mesh. Throws: CommError and its kinds; Error for the gradient of a pending Max, Min or Product.
/// PyTorch: `DTensor.redistribute`.
template <class... P, class T, std::size_t R, class Mesh, class... From>
  requires(sizeof...(P) > 0 && (Placement<P> && ...))
auto redistribute(const BasicTensor<T, R, Distributed<Mesh, From...>>& x) {
  detail::check_placements<Mesh, R, P...>();
  if constexpr (sizeof...(P) == sizeof...(From) && (shard_dim_in_range<P, R> && ...)) {
    using X = BasicTensor<T, R, Distributed<Mesh, From...>>;
    return detail::move_or_same<detail::Redistributed<X, P...>>(x);
  } else {
    return x;  // so that the first error is the one above
  }
}

/// Moves one axis and leaves the others: `redistribute<On<"tp", Replicate>>(x)`.
template <class OnAxis, class T, std::size_t R, class Mesh, class... From>
  requires(detail::is_on<OnAxis>)
auto redistribute(const BasicTensor<T, R, Distributed<Mesh, From...>>& x) {
  using X = BasicTensor<T, R, Distributed<Mesh, From...>>;
  using P = typename OnAxis::placement;
  static_assert(
      shard_dim_in_range<P, R>,
      "shardwise::redistribute: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  if constexpr (shard_dim_in_range<P, R>) {
    constexpr auto list = detail::with_axis<X, OnAxis::axis, P>();
    using Layout = typename detail::distributed_of<Mesh, list>::type;
    return detail::move_or_same<BasicTensor<T, R, Layout>>(x);
  } else {
    return x;
  }
}

/// A plain tensor lies on no mesh.
template <class... P, class T, std::size_t R, class Space>
auto redistribute(const BasicTensor<T, R, Local<Space>>& x) {
  static_assert(
      sizeof...(P) == static_cast<std::size_t>(-1),
      "shardwise::redistribute: [P5] a plain tensor lies on no mesh; bring it there with distribute_tensor<P...>(x, mesh) "
      "or from_local<P...>(x, mesh)");
  return x;
}

}  // namespace shardwise
