// Sums over a whole tensor or one dimension, and their backward: spreading and scaling. Sums are pairwise over
// runs of 256 or kept in double, so that their error does not grow with the length. Layer: ops.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/base/dtype.hpp>
#include <shardwise/ops/kernels/loop.hpp>

namespace shardwise::detail::kernels {

template <class A, class T>
A sum_run(const T* x, std::int64_t n) {
  using S = Accumulator<T>;
  constexpr int lanes = 8;  // independent chains: an addition takes four cycles
  A lane[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) lane[j] += static_cast<A>(static_cast<S>(x[i + j]));
  const int rest = static_cast<int>(n - i);
  for (int j = 0; j < rest; ++j) lane[j] += static_cast<A>(static_cast<S>(x[i + j]));
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

template <class A, class T>
A sum_pairwise(const T* x, std::int64_t n) {
  if (n <= 256) return sum_run<A>(x, n);
  const std::int64_t half = (n / 2 + 7) / 8 * 8;
  return sum_pairwise<A>(x, half) + sum_pairwise<A>(x + half, n - half);
}

/// The sum of all elements; zero for none. Integers wrap in T like PyTorch's int64.
template <class T>
T sum_all(const T* x, std::int64_t n) {
  return static_cast<T>(static_cast<Accumulator<T>>(sum_pairwise<SumAccumulator<T>>(x, n)));
}

/// y[i] = x[i] * factor. y may be x.
template <class T>
void scale(const T* x, Accumulator<T> factor, T* y, std::int64_t n) {
  map(x, y, n, [factor](Accumulator<T> v) { return v * factor; });
}

template <class T>
void fill(T* y, T value, std::int64_t n) {
  each(y, n, [value](std::int64_t) { return value; });
}

/// y += x.
template <class T>
void add_to(T* y, const T* x, std::int64_t n) {
  zip(y, x, y, n, [](Accumulator<T> a, Accumulator<T> b) { return a + b; });
}

/// Sums over the middle dimension: x (outer, n, inner) -> y (outer, inner).
template <class T>
void sum_dim(const T* x, T* y, std::int64_t outer, std::int64_t n, std::int64_t inner) {
  using S = SumAccumulator<T>;
  using A = Accumulator<T>;
  if (n == 0) return fill(y, T(0), outer * inner);
  if (inner == 1) {
    for (std::int64_t o = 0; o < outer; ++o) y[o] = sum_all(x + o * n, n);
    return;
  }
  constexpr std::int64_t strip = 256;
  for (std::int64_t o = 0; o < outer; ++o, x += n * inner, y += inner) {
    for (std::int64_t from = 0; from < inner; from += strip) {
      const std::int64_t width = inner - from < strip ? inner - from : strip;
      S sum[strip];
      for (std::int64_t i = 0; i < width; ++i) sum[i] = S(0);
      const T* row = x + from;
      for (std::int64_t j = 0; j < n; ++j, row += inner)
        for (std::int64_t i = 0; i < width; ++i) sum[i] += static_cast<S>(static_cast<A>(row[i]));
      for (std::int64_t i = 0; i < width; ++i) y[from + i] = static_cast<T>(static_cast<A>(sum[i]));
    }
  }
}

/// Backward of sum_dim and, with factor 1/n, of a mean: dx (outer, n, inner) = factor * dy (outer, inner).
template <class T>
void spread_dim(const T* dy, T* dx, std::int64_t outer, std::int64_t n, std::int64_t inner, Accumulator<T> factor) {
  if (n == 0 || inner == 0) return;
  if (inner == 1) {
    for (std::int64_t o = 0; o < outer; ++o)
      fill(dx + o * n, static_cast<T>(static_cast<Accumulator<T>>(dy[o]) * factor), n);
    return;
  }
  for (std::int64_t o = 0; o < outer; ++o, dx += n * inner, dy += inner) {
    scale(dy, factor, dx, inner);
    for (std::int64_t j = 1; j < n; ++j)
      std::memcpy(static_cast<void*>(dx + j * inner), dx, static_cast<std::size_t>(inner) * sizeof(T));
  }
}

}  // namespace shardwise::detail::kernels
