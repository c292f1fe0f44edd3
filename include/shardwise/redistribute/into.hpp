// redistribute_into: the move into memory that the caller holds, on the same mesh or on another one. Layer: redistribute.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>

#include <shardwise/redistribute/other_mesh.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

// Whether the mesh of the output is another one is known at run time only, where the types are the same.
template <class X, class Out>
void move_into(const X& x, Out& out) {
  using T = typename X::value_type;
  const Extents& global = x.impl()->global;
  if constexpr (!mesh_on_host<typename X::Mesh>)
    DeviceExecutor<mesh_on_host<typename X::Mesh>>::use(x.impl()->buffer, out.impl()->buffer);
  const std::byte* const in = x.impl()->buffer.data();
  std::byte* const to = out.impl()->buffer.data();
  const bool shares = in == to && x.size() > 0;
  const char* const shared = "shardwise::redistribute_into: the output shares its elements with the input";
  if constexpr (std::is_same_v<typename X::Mesh, typename Out::Mesh>)
    if (x.mesh() == out.mesh()) {
      SHARDWISE_REQUIRE(!shares || (std::is_same_v<X, Out>), shared);
      return execute_placed<either_interleaved<X, Out>>(x.mesh(), X::placements, Out::placements, global, dtype_of<T>,
                                                        in, to);
    }
  SHARDWISE_REQUIRE(pending_axes(Out::placements) == 0,
                    "shardwise::redistribute_into: a pending reduction stays on its mesh; give an output placed "
                    "Replicate or Shard there");
  if (!meshes_are_known(x.mesh(), out.mesh())) return;
  if (shares) {
    const Relabelling left =
        relabelling(listed_grid_view(x.mesh(), X::placements), listed_grid_view(out.mesh(), Out::placements), global);
    SHARDWISE_REQUIRE(left == Relabelling::exact, shared);
    return;
  }
  execute_across(x.mesh(), X::placements, out.mesh(), Out::placements, global, dtype_of<T>, in, to);
}

}  // namespace detail

/// Moves into memory that the caller holds, on the mesh of `out`, the same or another one of the same world; nothing is recorded,
/// and on one mesh nothing allocated. The placements are those of `out`.
///
/// Ranks: as `redistribute`, on another mesh as `redistribute<P...>(x, mesh)`; those outside a mesh give their empty tensor.
/// Throws `Error` where a gradient would be recorded (use `NoGrad`) and where `out` shares its elements with `x`, but for a
/// tensor that is there already, `ShapeError` where the shapes differ. Otherwise as these.
template <class T, std::size_t R, class Mesh, class... From, class OutMesh, class... To>
void redistribute_into(const BasicTensor<T, R, Distributed<Mesh, From...>>& x,
                       BasicTensor<T, R, Distributed<OutMesh, To...>>& out) {
  using X = BasicTensor<T, R, Distributed<Mesh, From...>>;
  using Out = BasicTensor<T, R, Distributed<OutMesh, To...>>;
  constexpr bool one_kind = std::is_same_v<typename Mesh::Communicator, typename OutMesh::Communicator>;
  static_assert(
      one_kind,
      "shardwise::redistribute_into: [P7] both meshes are of one kind of communicator; go through full_tensor() and "
      "distribute_tensor<P...>(x, mesh)");
  constexpr bool may_be_one_mesh = std::is_same_v<Mesh, OutMesh>;
  constexpr bool reachable = [] {
    if constexpr (may_be_one_mesh)
      return detail::all_redistributable<typename X::layout_type, typename Out::layout_type>;
    else
      return true;
  }();
  static_assert(
      reachable,
      "shardwise::redistribute_into: [P3] the target is Partial where the source is not; give an output placed "
      "Replicate or Shard");
  constexpr bool stays = may_be_one_mesh || detail::pending_axes(Out::placements) == 0;
  static_assert(
      stays,
      "shardwise::redistribute_into: [P8] a pending reduction stays on its mesh; give an output placed Replicate or "
      "Shard there");
  SHARDWISE_REQUIRE(
      !detail::wants_grad(x) && !(grad_enabled() && out.requires_grad()),
      "shardwise::redistribute_into: a gradient would have to be recorded; use redistribute, or NoGrad around this call");
  SHARDWISE_REQUIRE(x.shape() == out.shape(),
                    "shardwise::redistribute_into: the output has shape " + to_string(out.shape()) + ", the input " +
                        to_string(x.shape()),
                    ShapeError);
  if constexpr (one_kind && reachable && stays) detail::move_into(x, out);
}

}  // namespace shardwise
