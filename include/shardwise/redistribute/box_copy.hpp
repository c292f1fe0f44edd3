// Copies and reductions of boxes between row-major local tensors, one contiguous run at a time.
// Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/comm/reduce.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/placement/walk.hpp>

namespace shardwise::detail {

// An output that is larger than the caches is written past them. Rows shorter than a few lines would leave lines half
// written, which costs more than it saves.
inline constexpr std::size_t streamed_row_bytes = 512;
inline bool is_streamed(const Box& output, std::size_t element) {
  return static_cast<std::size_t>(output.size.elements()) * element >= streamed_bytes;
}

// From a row of `a` to the next; 0 where there is none, or where it follows anyway.
inline std::int64_t row_ahead(const Walk& w) {
  if (w.rank == 1 || w.stride_a[w.rank - 2] == w.extent[w.rank - 1]) return 0;
  return w.stride_a[w.rank - 2];
}

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
      std::memcpy(target + i * static_cast<std::int64_t>(Bytes), source + i * static_cast<std::int64_t>(Bytes),
                  sizeof(Element));
  });
}

// Copies `piece` from a local tensor that holds `held` to one that holds `wanted`.
template <class = void>
void copy_box(const Box& piece, const Box& held, const void* from, const Box& wanted, void* to, std::size_t element) {
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
  const auto row_bytes = static_cast<std::size_t>(n * size);
  if (row_bytes >= streamed_row_bytes && is_streamed(wanted, element)) {
    const std::int64_t ahead = row_ahead(w) * size;
    for_each_row(w, [&](std::int64_t a, std::int64_t b) {
      stream_copy(target + b * size, source + a * size, row_bytes, ahead);
    });
    stream_fence();
    return;
  }
  for_each_row(w,
               [&](std::int64_t a, std::int64_t b) { std::memcpy(target + b * size, source + a * size, row_bytes); });
}

// A sum of real numbers, in one pass.
template <class T>
void sum_box(const Walk& w, const std::byte* const* terms, int count, std::byte* const* outputs, int output_count,
             bool stream) {
  const T* from[max_ranks_reduced];
  T* to[max_ranks_reduced];
  const std::int64_t ahead = row_ahead(w) * static_cast<std::int64_t>(sizeof(T));
  for_each_row(w, [&](std::int64_t a, std::int64_t b) {
    for (int t = 0; t < count; ++t) from[t] = reinterpret_cast<const T*>(terms[t]) + a;
    for (int o = 0; o < output_count; ++o) to[o] = reinterpret_cast<T*>(outputs[o]) + b;
    sum_terms(to, output_count, from, count, w.extent[w.rank - 1], ahead, stream);
  });
  if (stream) stream_fence();
}

// Reduces `piece` of `count` local tensors, which hold the same box, in their order, and stores it in each of
// `outputs`, which hold the same box too.
template <class Type>
void reduce_box(Type dtype, const Box& piece, const Box& held, const std::byte* const* terms, int count,
                const Box& wanted, std::byte* const* outputs, int output_count, ReduceOp op) {
  const Walk w = walk(piece, held, wanted);
  if (w.empty) return;
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t n = w.extent[w.rank - 1];
  const bool stream = static_cast<std::size_t>(n * size) >= streamed_row_bytes && is_streamed(wanted, size_of(dtype));
  if (op == ReduceOp::sum) {
    if (dtype == DType::float32) return sum_box<float>(w, terms, count, outputs, output_count, stream);
    if (dtype == DType::float64) return sum_box<double>(w, terms, count, outputs, output_count, stream);
  }
  const ReduceKernels& kernels = reduce_kernels_of(dtype);
  const void* rows[max_ranks_reduced];
  const bool aside = output_count > 1;  // the sum is kept in the first-level cache until all outputs have it
  const std::int64_t block = 8192 / size;
  alignas(64) std::byte memory[8192];
  for_each_row(w, [&](std::int64_t a, std::int64_t b) {
    a *= size;
    b *= size;
    for (std::int64_t i = 0; i < n; i += block) {
      const std::int64_t m = n - i < block ? n - i : block;
      const auto bytes = static_cast<std::size_t>(m * size);
      for (int t = 0; t < count; ++t) rows[t] = terms[t] + a + i * size;
      std::byte* sum = aside ? memory : outputs[0] + b + i * size;
      reduce_blocks(kernels, sum, rows, count, m, op, stream && !aside);
      for (int o = 0; aside && o < output_count; ++o) {
        std::byte* to = outputs[o] + b + i * size;
        stream ? stream_copy(to, sum, bytes) : static_cast<void>(std::memcpy(to, sum, bytes));
      }
    }
  });
  if (stream) stream_fence();
}

}  // namespace shardwise::detail
