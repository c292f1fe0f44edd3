// redistribute<P...>(x, mesh): the differentiable move to another mesh of the same world: the same ranks in another order or shape,
// some of them, more of them, or others. Layer: redistribute.
#pragma once

#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include <shardwise/base/memory.hpp>
#include <shardwise/comm/trace.hpp>
#include <shardwise/redistribute/crossing.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

// A sub-mesh is known to its own ranks only: moves between meshes need to know all.
template <class From, class To>
bool meshes_are_known(const From& from, const To& to) {
  if (from.ranks().empty() && to.ranks().empty()) return false;  // this rank has no part in either
  SHARDWISE_REQUIRE(
      !from.ranks().empty() && !to.ranks().empty(),
      "shardwise::redistribute: this rank knows nothing of a sub-mesh that it is no part of; make the mesh with "
      "init_device_mesh and {.ranks = ...}, on all ranks of the world");
  SHARDWISE_REQUIRE(
      from.grid().world->id() == to.grid().world->id(),
      "shardwise::redistribute: the meshes are made of different communicators; make both of the same world");
  return true;
}

// The gradient goes back the other way: to the ranks, and split as the value was. A pending one is settled on the way.
template <class From, class To>
struct OtherMeshNode final : Node {
  OtherMeshNode(const From& from_mesh, const PlacementList<From::ndim>& source, const To& to_mesh,
                const PlacementList<To::ndim>& target, const Extents& shape)
      : Node("redistribute"), from(from_mesh), to(to_mesh), from_placements(source), to_placements(target),
        global(shape), module(trace_state().module) {}

  void backward(GradSlot& out) override {
    GradSlot& slot = *inputs[0];
    const std::string_view before = std::exchange(trace_state().module, module);
    Buffer grad = space_on<From>::allocated(static_cast<std::size_t>(slot.count) * size_of(slot.dtype));
    if constexpr (!mesh_on_host<From>) DeviceExecutor<mesh_on_host<From>>::use(out.grad);
    execute_across(to, arrived(to_placements, out.pending), from, gradients_of(from_placements), global, slot.dtype,
                   out.grad.data(), grad.data());
    trace_state().module = before;
    std::int64_t divisor = 1;
    for (std::size_t a = 0; a < From::ndim; ++a)
      if (from_placements[a].is_partial() && from_placements[a].op == ReduceOp::avg) divisor *= from.shape()[a];
    divide_on<From>(slot.dtype, grad.data(), slot.count, divisor);
    accumulate(slot, std::move(grad), 0);
  }

  From from;
  To to;
  PlacementList<From::ndim> from_placements;
  PlacementList<To::ndim> to_placements;
  Extents global;
  std::string_view module;
};

template <class Target, class X>
Target redistribute_across(const X& x, const typename Target::Mesh& mesh) {
  using T = typename X::value_type;
  const Extents& global = x.impl()->global;
  const bool known = meshes_are_known(x.mesh(), mesh);
  Target y;
  if (known && relabelling(listed_grid_view(x.mesh(), X::placements), listed_grid_view(mesh, Target::placements),
                           global) == Relabelling::exact) {
    y = share_tensor<T, X::rank, typename Target::layout_type>(
        x.impl()->buffer, global, local_extents<typename Target::layout_type>(mesh, global), mesh);
  } else {
    y = make_tensor<T, X::rank, typename Target::layout_type>(global, mesh);
    if constexpr (!mesh_on_host<typename X::Mesh>)
      DeviceExecutor<mesh_on_host<typename X::Mesh>>::use(x.impl()->buffer);
    if (known)
      execute_across(x.mesh(), X::placements, mesh, Target::placements, global, dtype_of<T>, x.impl()->buffer.data(),
                     y.impl()->buffer.data());
  }
  if (known && wants_grad(x)) {
    SHARDWISE_REQUIRE(
        has_gradient(X::placements),
        "shardwise::redistribute: a pending maximum, minimum or product has no gradient; detach(x) or use NoGrad");
    auto node = make_ref<OtherMeshNode<typename X::Mesh, typename Target::Mesh>>(x.mesh(), X::placements, mesh,
                                                                                 Target::placements, global);
    node->inputs.push_back(x.impl()->slot);
    record(y, std::move(node));
  }
  return y;
}

}  // namespace detail

/// Moves a tensor to another mesh of the same world, one placement per axis of that mesh: `redistribute<Shard<0>>(x, other)`.
///
/// Moves: what a rank needs and does not hold, once; nothing where every rank holds what it needs (the same ranks in another
/// order or shape, the same parts): then nobody meets, and where the parts are the same the elements are shared, not copied.
/// Needs: as redistribute; on ranks outside the source mesh the empty tensor that they hold. Gives: the part that `P...` on
/// the mesh says; an empty one outside it. Gradient: goes back the other way; a pending one is settled.
/// Ranks: those of the mesh that has all ranks of the other one; all of the world where neither does.
/// Throws: `Error` where the meshes are made of different communicators, and where this rank knows only one of two sub-meshes;
/// CommError and its kinds.
template <class... P, class T, std::size_t R, class Mesh, class... From, class Comm, Name... Axes>
  requires(sizeof...(P) > 0 && (Placement<P> && ...))
auto redistribute(const BasicTensor<T, R, Distributed<Mesh, From...>>& x, const DeviceMesh<Comm, Axes...>& mesh) {
  using To = DeviceMesh<Comm, Axes...>;
  detail::check_placements<To, R, P...>();
  constexpr bool same_kind = std::is_same_v<Comm, typename Mesh::Communicator>;
  static_assert(
      same_kind,
      "shardwise::redistribute: [P7] both meshes are of one kind of communicator; go through full_tensor() and "
      "distribute_tensor<P...>(x, mesh)");
  constexpr bool values = (!placement_value<P>.is_partial() && ...);
  static_assert(
      values,
      "shardwise::redistribute: [P8] a pending reduction stays on its mesh; redistribute to Replicate or Shard there");
  if constexpr (sizeof...(P) == To::ndim && (shard_dim_in_range<P, R> && ...) && same_kind && values)
    return detail::redistribute_across<DTensor<T, R, To, Normalized<P, R>...>>(x, mesh);
}

}  // namespace shardwise
