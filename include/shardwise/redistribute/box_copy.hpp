// Copies and reductions of boxes between row-major local tensors, one contiguous run at a time.
// Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/comm/reduce.hpp>
#include <shardwise/placement/walk.hpp>

namespace shardwise::detail {

// At most so many terms meet in one reduction.
inline constexpr int max_ranks_reduced = 1024;

template <std::size_t Bytes>
void copy_short_rows(const Walk& w, const std::byte* from, std::byte* to) {
  struct Element {
    std::byte bytes[Bytes];
  };
  const std::int64_t n = w.extent[w.rank - 1];
  for_each_row(w, [&](std::int64_t a, std::int64_t b) {
    const std::byte* __restrict source = from + a * static_cast<std::int64_t>(Bytes);
    std::byte* __restrict target = to + b * static_cast<std::int64_t>(Bytes);
    for (std::int64_t i = 0; i < n; ++i)
      std::memcpy(target + i * static_cast<std::int64_t>(Bytes), source + i * static_cast<std::int64_t>(Bytes), sizeof(Element));
  });
}

// Copies `piece` from a local tensor that holds `held` to one that holds `wanted`.
inline void copy_box(const Box& piece, const Box& held, const void* from, const Box& wanted, void* to, std::size_t element) {
  const Walk w = walk(piece, held, wanted);
  if (w.empty) return;
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  const std::int64_t n = w.extent[w.rank - 1];
  if (w.rank > 1 && n <= 8) {  // a call of memcpy a row would cost more than the row
    switch (element) {
      case 1: return copy_short_rows<1>(w, source, target);
      case 2: return copy_short_rows<2>(w, source, target);
      case 4: return copy_short_rows<4>(w, source, target);
      case 8: return copy_short_rows<8>(w, source, target);
      default: return copy_short_rows<16>(w, source, target);
    }
  }
  const auto size = static_cast<std::int64_t>(element);
  for_each_row(w, [&](std::int64_t a, std::int64_t b) {
    std::memcpy(target + b * size, source + a * size, static_cast<std::size_t>(n * size));
  });
}

// Reduces `piece` of `count` local tensors, which hold the same box, in their order, and stores it in each of
// `outputs`, which hold the same box too.
template <class T>
void reduce_box(const Box& piece, const Box& held, const std::byte* const* terms, int count, const Box& wanted,
                std::byte* const* outputs, int output_count, ReduceOp op) {
  const Walk w = walk(piece, held, wanted);
  if (w.empty) return;
  constexpr std::int64_t block = 4096;  // stays in the first-level cache until the other outputs have it
  const T* rows[max_ranks_reduced];
  const std::int64_t n = w.extent[w.rank - 1];
  for_each_row(w, [&](std::int64_t a, std::int64_t b) {
    for (std::int64_t i = 0; i < n; i += block) {
      const std::int64_t m = n - i < block ? n - i : block;
      for (int t = 0; t < count; ++t) rows[t] = reinterpret_cast<const T*>(terms[t]) + a + i;
      T* first = reinterpret_cast<T*>(outputs[0]) + b + i;
      reduce_terms(first, rows, count, m, op);
      for (int o = 1; o < output_count; ++o)
        std::memcpy(reinterpret_cast<T*>(outputs[o]) + b + i, first, static_cast<std::size_t>(m) * sizeof(T));
    }
  });
}

}  // namespace shardwise::detail
