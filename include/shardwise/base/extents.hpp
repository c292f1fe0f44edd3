// Extents: the sizes of a tensor as a value of run-time rank, for code that is written once for all ranks.
// Shape<R> is the public, static-rank spelling. Layer: base.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace shardwise {

/// The sizes (or indices) of a tensor of static rank R.
template <std::size_t R>
using Shape = std::array<std::int64_t, R>;

/// Tensors have at most this many dimensions.
inline constexpr std::size_t max_rank = 8;

namespace detail {

struct Extents {
  std::int64_t size[max_rank] = {};
  int rank = 0;

  constexpr Extents() = default;
  template <std::size_t R>
  constexpr explicit Extents(const Shape<R>& shape) : rank(static_cast<int>(R)) {
    static_assert(R <= max_rank, "shardwise::Shape: [S1] at most 8 dimensions");
    for (std::size_t i = 0; i < R; ++i) size[i] = shape[i];
  }

  constexpr std::int64_t& operator[](int i) { return size[i]; }
  constexpr std::int64_t operator[](int i) const { return size[i]; }

  constexpr std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= size[i];
    return n;
  }
  // Elements in dimensions [first, last).
  constexpr std::int64_t elements(int first, int last) const {
    std::int64_t n = 1;
    for (int i = first; i < last; ++i) n *= size[i];
    return n;
  }
  template <std::size_t R>
  constexpr Shape<R> shape() const {
    Shape<R> s{};
    for (std::size_t i = 0; i < R; ++i) s[i] = size[i];
    return s;
  }
  friend constexpr bool operator==(const Extents& a, const Extents& b) {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; ++i)
      if (a.size[i] != b.size[i]) return false;
    return true;
  }
};

}  // namespace detail

}  // namespace shardwise
