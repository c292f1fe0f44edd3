// Strided copies, fills, rows looked up in a table: what only moves bytes. In units of 16 bytes where sizes, strides and addresses
// allow, so one body serves all element types. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <shardwise/cuda/bodies/index.hpp>

namespace shardwise::detail::device {

// In words: of bytes nvcc makes as many registers where one of two units is chosen.
template <int Bytes>
struct alignas(Bytes) Unit {
  using Word =
      std::conditional_t<Bytes == 1, std::uint8_t, std::conditional_t<Bytes == 2, std::uint16_t, std::uint32_t>>;
  Word value[static_cast<std::size_t>(Bytes) / sizeof(Word)];
};

/// A copy of a box with any strides as a copy of units: dimensions from the fastest to the slowest in the destination, in units,
/// merged where they are one run.
struct CopyPlan {
  static constexpr int most = static_cast<int>(max_rank) + 1;
  int unit = 1;  // bytes: 1, 2, 4, 8 or 16
  int rank = -1;  // -1: nothing to copy
  std::int64_t size[most] = {};
  std::int64_t from[most] = {};
  std::int64_t to[most] = {};

  // dst[sum i_d to_d] = src[sum i_d from_d] for elements of `element` bytes; strides count elements and are not negative. Units are
  // of at most `largest` bytes.
  CopyPlan(int dimensions, const std::int64_t* extents, std::size_t element, const void* src,
           const std::int64_t* src_strides, const void* dst, const std::int64_t* dst_strides, int largest = 16) {
    const auto width = static_cast<std::int64_t>(element);
    int count = 0;
    for (int d = 0; d < dimensions; ++d) {
      if (extents[d] == 0) return;
      if (extents[d] == 1) continue;
      int at = count++;  // by rising stride of the destination
      for (; at > 0 && to[at - 1] > dst_strides[d] * width; --at) move(at - 1, at);
      size[at] = extents[d];
      from[at] = src_strides[d] * width;
      to[at] = dst_strides[d] * width;
    }
    for (int at = count++; at > 0; --at) move(at - 1, at);  // the bytes of an element: the fastest dimension
    size[0] = width;
    from[0] = to[0] = 1;
    rank = 1;
    for (int d = 1; d < count; ++d) {
      if (from[d] == size[rank - 1] * from[rank - 1] && to[d] == size[rank - 1] * to[rank - 1]) {
        size[rank - 1] *= size[d];
      } else {
        move(d, rank);
        ++rank;
      }
    }
    auto bits =
        static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(src) | reinterpret_cast<std::uintptr_t>(dst));
    bits |= static_cast<std::uint64_t>(size[0]) | static_cast<unsigned>(largest);
    for (int d = 1; d < rank; ++d) bits |= static_cast<std::uint64_t>(from[d]) | static_cast<std::uint64_t>(to[d]);
    unit = static_cast<int>(bits & (~bits + 1));
    size[0] /= unit;
    for (int d = 1; d < rank; ++d) {
      from[d] /= unit;
      to[d] /= unit;
    }
    if (size[0] == 1 && rank > 1) {
      for (int d = 1; d < rank; ++d) move(d, d - 1);
      --rank;
    }
  }

  std::int64_t units() const {
    std::int64_t n = rank < 0 ? 0 : 1;
    for (int d = 0; d < rank; ++d) n *= size[d];
    return n;
  }
  bool contiguous() const { return rank == 1 && from[0] == 1 && to[0] == 1; }
  // The dimension along which the source is contiguous while the destination is so along dimension 0; 0: there is none, or too
  // little of it for tiles.
  int transposed() const {
    if (rank < 2 || to[0] != 1 || from[0] == 1 || size[0] < 8) return 0;
    for (int d = 1; d < rank; ++d)
      if (from[d] == 1 && size[d] >= 8) return d;
    return 0;
  }

 private:
  void move(int d, int into) {
    size[into] = size[d];
    from[into] = from[d];
    to[into] = to[d];
  }
};

/// Index: a unit of the destination, neighbours along its fastest dimension.
template <int Bytes, int Most>
struct StridedCopyBody {
  TwoStrides<Most> strides;
  const Unit<Bytes>* src;
  Unit<Bytes>* dst;

  StridedCopyBody(const CopyPlan& plan, const void* s, void* d)
      : src(static_cast<const Unit<Bytes>*>(s)), dst(static_cast<Unit<Bytes>*>(d)) {
    for (int i = 0; i < plan.rank; ++i) strides.add(plan.size[i], plan.from[i], plan.to[i]);
  }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index) const {
    const Offsets o = strides.at(index);
    dst[o.b] = src[o.a];
  }
};

/// Index: a square tile of two dimensions, one contiguous in the source and one in the destination. Read along the first, written
/// along the second, by way of shared memory: both sides are coalesced. A column more than the tile keeps its columns in different
/// banks.
template <int Bytes>
struct TransposeBody {
  static constexpr int tile = Bytes <= 2 ? 64 : 32;
  static constexpr std::size_t shared_bytes = std::size_t{tile} * (tile + 1) * Bytes;

  Divider tiles_i, tiles_j;  // i: contiguous in the source; j: in the destination
  std::int64_t size_i, size_j, from_j, to_i;
  TwoStrides<CopyPlan::most - 2> rest;
  const Unit<Bytes>* src;
  Unit<Bytes>* dst;

  TransposeBody(const CopyPlan& plan, int along, const void* s, void* d)
      : tiles_i((plan.size[along] + tile - 1) / tile), tiles_j((plan.size[0] + tile - 1) / tile),
        size_i(plan.size[along]), size_j(plan.size[0]), from_j(plan.from[0]), to_i(plan.to[along]),
        src(static_cast<const Unit<Bytes>*>(s)), dst(static_cast<Unit<Bytes>*>(d)) {
    for (int i = 1; i < plan.rank; ++i)
      if (i != along) rest.add(plan.size[i], plan.from[i], plan.to[i]);
  }
  std::int64_t tiles() const { return tiles_i.divisor * tiles_j.divisor * rest.elements(); }

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index, const Team& team) const {
    const std::int64_t row = tiles_j.divide(index);
    const std::int64_t j0 = (index - row * tiles_j.divisor) * tile;
    const std::int64_t outer = tiles_i.divide(row);
    const std::int64_t i0 = (row - outer * tiles_i.divisor) * tile;
    const Offsets o = rest.at(outer);
    const Unit<Bytes>* const from = src + o.a + i0 + j0 * from_j;
    Unit<Bytes>* const to = dst + o.b + i0 * to_i + j0;
    Unit<Bytes>* const held = team.template shared<Unit<Bytes>>();
    const std::int64_t rows = size_i - i0 < tile ? size_i - i0 : tile;
    const std::int64_t columns = size_j - j0 < tile ? size_j - j0 : tile;
    team.each(tile * tile, [&](std::int64_t k) {
      const std::int64_t i = k % tile, j = k / tile;
      if (i < rows && j < columns) held[j * (tile + 1) + i] = from[i + j * from_j];
    });
    team.sync();
    team.each(tile * tile, [&](std::int64_t k) {
      const std::int64_t i = k / tile, j = k % tile;
      if (i < rows && j < columns) to[i * to_i + j] = held[j * (tile + 1) + i];
    });
  }
};

/// Index: a unit of the output. Rows of `width` units; row r is that of table[index[r] - first], zeros where the part of the table
/// has no such row. What is no row of the whole table gives zeros and is noted in `invalid` (position + 1; any one of several).
template <int Bytes>
struct LookupBody {
  const Unit<Bytes>* table;
  const std::int64_t* index;
  Unit<Bytes>* out;
  std::int64_t* invalid;
  std::int64_t first, count, vocabulary;
  Divider width;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t position = width.divide(i);
    const std::int64_t asked = index[position];
    const std::int64_t row = asked - first;
    if ((asked < 0 || asked >= vocabulary) && invalid != nullptr) *invalid = position + 1;
    out[i] = row >= 0 && row < count ? table[row * width.divisor + (i - position * width.divisor)] : Unit<Bytes>{};
  }
};

}  // namespace shardwise::detail::device
