// Lookup of rows in a table that may be a shard of the vocabulary, with its gradient, and dropout from given random
// numbers. Layer: ops.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail::kernels {

/// out[i] = table[index[i] - first], zeros where the row is not one of [first, first + count).
///   table: (count, width), index: (n), out: (n, width)
/// Throws before anything is written where an index is outside [0, vocabulary).
template <class T>
void embedding(const T* table, std::int64_t first, std::int64_t count, std::int64_t vocabulary, std::int64_t width,
               const std::int64_t* index, std::int64_t n, T* out) {
  for (std::int64_t i = 0; i < n; ++i)
    SHARDWISE_REQUIRE(index[i] >= 0 && index[i] < vocabulary,
                      detail::text("shardwise::embedding: index ", index[i], " at position ", i,
                                   " is outside the table of ", vocabulary, " rows"));
  const std::size_t bytes = static_cast<std::size_t>(width) * sizeof(T);
  if (bytes == 0) return;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t row = index[i] - first;
    if (row >= 0 && row < count)
      std::memcpy(static_cast<void*>(out + i * width), table + row * width, bytes);
    else
      std::memset(static_cast<void*>(out + i * width), 0, bytes);
  }
}

/// dtable (count, width), written: the sum of dy (n, width) over the positions that looked a row up.
template <class T>
void embedding_backward(const T* dy, const std::int64_t* index, std::int64_t n, std::int64_t first, std::int64_t count,
                        std::int64_t width, T* dtable) {
  using A = Accumulator<T>;
  const auto scatter = [&](A* into) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = index[i] - first;
      if (row < 0 || row >= count) continue;
      A* sum = into + row * width;
      const T* term = dy + i * width;
      for (std::int64_t j = 0; j < width; ++j) sum[j] += static_cast<A>(term[j]);
    }
  };
  const std::int64_t size = count * width;
  if constexpr (std::is_same_v<T, A>) {
    for (std::int64_t i = 0; i < size; ++i) dtable[i] = T(0);
    scatter(dtable);
  } else {  // a row that occurs often would stop growing in 16 bits
    std::vector<A> sums(static_cast<std::size_t>(size));
    scatter(sums.data());
    for (std::int64_t i = 0; i < size; ++i) dtable[i] = static_cast<T>(sums[static_cast<std::size_t>(i)]);
  }
}

/// y = x / (1 - p) where uniform[i] >= p, else 0; mask says which. Uniforms lie in [0, 1). y may be x.
template <class T>
void dropout(const T* x, const float* uniform, double p, T* y, std::uint8_t* mask, std::int64_t n) {
  using A = Accumulator<T>;
  const A factor = static_cast<A>(p < 1 ? 1 / (1 - p) : 0);
  const float threshold = static_cast<float>(p);
  for (std::int64_t i = 0; i < n; ++i) {
    const bool keep = uniform[i] >= threshold;
    mask[i] = keep ? 1 : 0;
    y[i] = keep ? static_cast<T>(static_cast<A>(x[i]) * factor) : T(0);
  }
}

/// dx = dy / (1 - p) where the mask is set, else 0. dx may be dy.
template <class T>
void dropout_backward(const T* dy, const std::uint8_t* mask, double p, T* dx, std::int64_t n) {
  using A = Accumulator<T>;
  const A factor = static_cast<A>(p < 1 ? 1 / (1 - p) : 0);
  for (std::int64_t i = 0; i < n; ++i) dx[i] = mask[i] != 0 ? static_cast<T>(static_cast<A>(dy[i]) * factor) : T(0);
}

}  // namespace shardwise::detail::kernels
