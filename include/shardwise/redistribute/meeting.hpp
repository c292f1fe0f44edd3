// Where the ranks of two meshes meet for a move from one to the other, and whether anything is left to move. Over values.
// Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstdint>

#include <shardwise/base/extents.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/grid_view.hpp>

namespace shardwise::detail {

// Which ranks meet in a move to another mesh: those of the mesh that has all of the other's, or else the whole world.
enum class MeetingPlace : std::uint8_t { from, to, world };

inline MeetingPlace meeting_place(const GridView& from, const GridView& to) {
  const auto has_all = [](const GridView& a, const GridView& b) {
    if (a.ranks() < b.ranks()) return false;
    for (const int r : *b.world_ranks)
      if (a.find(r) < 0) return false;
    return true;
  };
  if (has_all(from, to)) return MeetingPlace::from;
  return has_all(to, from) ? MeetingPlace::to : MeetingPlace::world;
}

// What is left of a move to another mesh where every rank has what it needs.
enum class Relabelling : std::uint8_t { none, part, exact };

inline Relabelling relabelling(const GridView& from, const GridView& to, const Extents& global) {
  if (global.elements() == 0) return Relabelling::part;
  for (int a = 0; a < from.axes; ++a)
    if (from.placements[a].is_partial() && from.shape[a] > 1) return Relabelling::none;
  Relabelling found = Relabelling::exact;
  for (std::int64_t r = 0; r < to.ranks(); ++r) {
    const Holding wanted = to.holding(r, global);
    const std::int64_t n = wanted.size.elements();
    const std::int64_t own = from.find(to.world_rank(r));
    if (own < 0) {
      if (n > 0) return Relabelling::none;
      continue;
    }
    const Holding held = from.holding(own, global);
    if (common_elements(held, wanted) != n) return Relabelling::none;
    if (held.size.elements() != n) found = Relabelling::part;
  }
  return found;
}

// The grid of a move to another mesh.
template <class Mesh>
GridView listed_grid_view(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements) {
  GridView view = grid_view(mesh, placements);
  view.ascending = std::is_sorted(mesh.ranks().begin(), mesh.ranks().end());
  return view;
}

// The ranks that meet; null where this rank is not among them.
template <class From, class To>
const typename To::Communicator* meeting_group(MeetingPlace place, const From& from_mesh, const To& to_mesh) {
  if (place == MeetingPlace::world) return to_mesh.grid().world.get();
  if (place == MeetingPlace::from) return from_mesh.is_member() ? &from_mesh.group((1u << From::ndim) - 1u) : nullptr;
  return to_mesh.is_member() ? &to_mesh.group((1u << To::ndim) - 1u) : nullptr;
}

}  // namespace shardwise::detail
