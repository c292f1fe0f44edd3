// Boxes: which part of the global index space a rank holds. The chunk rule and its nesting over several
// mesh axes, leftmost first; everything that redistributes is intersections of these. Layer: placement.
#pragma once

#include <cstdint>

#include <shardwise/base/extents.hpp>
#include <shardwise/placement/placement.hpp>

namespace shardwise::detail {

struct Range {
  std::int64_t offset = 0;
  std::int64_t size = 0;
};

// Chunk i of k of [offset, offset + size): ceil(size / k) long each, the last non-empty one shorter, the rest
// empty and at the end (torch.chunk).
constexpr Range chunk(Range whole, std::int64_t k, std::int64_t i) {
  const std::int64_t length = (whole.size + k - 1) / k;
  const std::int64_t first = i * length < whole.size ? i * length : whole.size;
  const std::int64_t last = (i + 1) * length < whole.size ? (i + 1) * length : whole.size;
  return {whole.offset + first, last - first};
}

struct Box {
  Extents offset;
  Extents size;

  constexpr bool empty() const { return size.elements() == 0; }
};

constexpr Box whole_box(const Extents& global) {
  Box box;
  box.offset.rank = global.rank;
  box.size = global;
  return box;
}

// The box of the rank with the given mesh coordinate. An empty shard lies at the global size of its
// dimension (PyTorch's compute_local_shape_and_global_offset, which checkpoints rely on).
constexpr Box box_of(const PlacementValue* placements, const std::int64_t* mesh, const std::int64_t* coordinate,
                     int axes, const Extents& global) {
  Box box = whole_box(global);
  for (int a = 0; a < axes; ++a) {
    if (!placements[a].is_shard()) continue;
    const int d = placements[a].dim;
    const Range part = chunk({box.offset[d], box.size[d]}, mesh[a], coordinate[a]);
    box.size[d] = part.size;
    box.offset[d] = part.size == 0 ? global[d] : part.offset;
  }
  return box;
}

template <std::size_t N>
constexpr Box box_of(const PlacementList<N>& placements, const Shape<N>& mesh, const Shape<N>& coordinate,
                     const Extents& global) {
  return box_of(placements.data(), mesh.data(), coordinate.data(), static_cast<int>(N), global);
}

constexpr Box intersection(const Box& a, const Box& b) {
  Box both = a;
  for (int d = 0; d < a.size.rank; ++d) {
    const std::int64_t first = a.offset[d] > b.offset[d] ? a.offset[d] : b.offset[d];
    const std::int64_t end_a = a.offset[d] + a.size[d];
    const std::int64_t end_b = b.offset[d] + b.size[d];
    const std::int64_t last = end_a < end_b ? end_a : end_b;
    both.offset[d] = first;
    both.size[d] = last > first ? last - first : 0;
  }
  return both;
}

}  // namespace shardwise::detail
