// GridView: a tensor on a mesh as values, whatever its number of axes: who holds what, and which rank of the world stands where.
// Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <shardwise/base/extents.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/placement/placement.hpp>

namespace shardwise::detail {

struct GridView {
  const PlacementValue* placements = nullptr;
  const std::int64_t* shape = nullptr;
  const std::int64_t* coordinate = nullptr;  // of this rank; null outside the mesh
  int axes = 0;
  const std::vector<int>* world_ranks = nullptr;  // row-major; needed for moves to another mesh
  bool ascending = false;  // they are listed so

  std::int64_t ranks() const {
    std::int64_t n = 1;
    for (int a = 0; a < axes; ++a) n *= shape[a];
    return n;
  }
  std::int64_t position(const std::int64_t* c) const {
    std::int64_t r = 0;
    for (int a = 0; a < axes; ++a) r = r * shape[a] + c[a];
    return r;
  }
  void coordinate_at(std::int64_t position, std::int64_t* c) const {
    for (int a = axes; a-- > 0; position /= shape[a]) c[a] = position % shape[a];
  }
  int world_rank(std::int64_t position) const { return (*world_ranks)[static_cast<std::size_t>(position)]; }
  // Where a rank of the world stands among those of the mesh; -1 outside.
  std::int64_t find(int rank) const {
    const std::vector<int>& list = *world_ranks;
    // As a rule ranks are listed one after the other.
    const auto guess = static_cast<std::size_t>(list.empty() ? 0 : rank - list.front());
    if (guess < list.size() && list[guess] == rank) return static_cast<std::int64_t>(guess);
    const auto at =
        ascending ? std::lower_bound(list.begin(), list.end(), rank) : std::find(list.begin(), list.end(), rank);
    return at != list.end() && *at == rank ? at - list.begin() : -1;
  }

  Holding holding_at(const std::int64_t* c, const Extents& global) const {
    return holding_of(placements, shape, c, axes, global);
  }
  Holding holding(std::int64_t position, const Extents& global) const {
    std::int64_t c[max_grid_axes] = {};
    coordinate_at(position, c);
    return holding_at(c, global);
  }
  // What this rank holds: a member.
  Holding own(const Extents& global) const { return holding_at(coordinate, global); }
  // Elements, of the rank that has most.
  std::int64_t largest(const Extents& global) const {
    // The first rank has the most, unless a later split of what pieces are cut from turns it around.
    std::int64_t most = holding(0, global).size.elements();
    bool strided = false;
    for (int a = 0; a < axes; ++a) strided = strided || placements[a].kind == PlacementKind::strided;
    for (std::int64_t r = 1; strided && r < ranks(); ++r) most = std::max(most, holding(r, global).size.elements());
    return most;
  }
};

template <class Mesh>
GridView grid_view(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements) {
  static_assert(
      Mesh::ndim <= max_grid_axes,
      "shardwise::redistribute: [B3] block-cyclic and strided tensors, and moves to another mesh, take meshes of "
      "at most 8 axes");
  return {placements.data(), mesh.shape().data(), mesh.is_member() ? mesh.grid().coordinate.data() : nullptr,
          static_cast<int>(Mesh::ndim), &mesh.ranks()};
}

}  // namespace shardwise::detail
