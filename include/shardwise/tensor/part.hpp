// What the mesh of a distributed tensor says of it: which part this rank holds, and who settles a pending gradient. Layer: tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/placement/box.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/tape/tape.hpp>
#include <shardwise/tensor/layout.hpp>

namespace shardwise::detail {

// The mesh of a distributed tensor; nothing for a plain one.
template <class Layout>
struct MeshHandle {
  struct Mesh {};
};
template <class M, Placement... P>
struct MeshHandle<Distributed<M, P...>> {
  using Mesh = M;
};

// Replaces the terms of one axis by their sum; defined in redistribute/, which moves.
template <class Mesh>
void sum_over_axis(const Mesh& mesh, int axis, DType dtype, void* data, std::int64_t count);

template <class Mesh>
struct MeshReducer final : PendingReducer {
  explicit MeshReducer(Mesh m) : mesh(std::move(m)) {}
  void all_reduce(int axis, DType dtype, void* data, std::int64_t count) const override {
    sum_over_axis(mesh, axis, dtype, data, count);
  }
  const void* identity() const override { return mesh.identity(); }
  Mesh mesh;
};

template <class Mesh>
std::uint32_t not_first_mask(const Mesh& mesh) {
  std::uint32_t mask = 0;
  for (std::size_t a = 0; a < Mesh::ndim; ++a)
    if (mesh.grid().coordinate[a] != 0) mask |= 1u << a;
  return mask;
}

template <class Mesh, std::size_t N>
Box local_box(const Mesh& mesh, const PlacementList<N>& placements, const Extents& global) {
  if (!mesh.is_member()) {  // an outsider holds nothing
    Box box = whole_box(global);
    for (int d = 0; d < global.rank; ++d) {
      box.size[d] = 0;
      box.offset[d] = global[d];
    }
    return box;
  }
  return box_of(placements, mesh.shape(), mesh.grid().coordinate, global);
}

// Sizes of this rank's part, also where it is no box.
template <bool Interleaved, class Mesh, std::size_t N>
Extents local_sizes(const Mesh& mesh, const PlacementList<N>& placements, const Extents& global) {
  if constexpr (Interleaved) {
    if (mesh.is_member()) return holding_of(placements, mesh.shape(), mesh.grid().coordinate, global).size;
  }
  return local_box(mesh, placements, global).size;
}
template <class Layout, class Mesh>
Extents local_extents(const Mesh& mesh, const Extents& global) {
  constexpr const auto& placements = layout_traits<Layout>::placements;
  return local_sizes<is_interleaved(layout_traits<Layout>::placements)>(mesh, placements, global);
}

}  // namespace shardwise::detail
