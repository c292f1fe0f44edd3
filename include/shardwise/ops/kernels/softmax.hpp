// softmax, log_softmax over one dimension of (outer, n, inner), forward and backward. A row of -inf alone gives
// NaN, as in PyTorch. Layer: ops.
#pragma once

#include <cmath>
#include <cstdint>

#include <shardwise/base/dtype.hpp>

namespace shardwise::detail::kernels {

// The largest element, which makes exp() safe, and the sum of exp(x - largest). Inputs that are NaN end up in the sum.
template <class A>
struct SoftmaxRow {
  A largest;
  A sum;
};

template <class T>
SoftmaxRow<Accumulator<T>> softmax_row(const T* x, std::int64_t n, std::int64_t stride) {
  using A = Accumulator<T>;
  A largest = static_cast<A>(x[0]);
  for (std::int64_t j = 1; j < n; ++j) {
    const A v = static_cast<A>(x[j * stride]);
    largest = v > largest ? v : largest;
  }
  A sum = 0;
  for (std::int64_t j = 0; j < n; ++j) sum += std::exp(static_cast<A>(x[j * stride]) - largest);
  return {largest, sum};
}

// Calls f(offset of the row's first element) for each row.
template <class F>
void for_each_row(std::int64_t outer, std::int64_t n, std::int64_t inner, F f) {
  if (n == 0) return;
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t i = 0; i < inner; ++i) f(o * n * inner + i);
}

/// y = softmax(x). y may be x.
template <class T>
void softmax(const T* x, T* y, std::int64_t outer, std::int64_t n, std::int64_t inner) {
  using A = Accumulator<T>;
  for_each_row(outer, n, inner, [&](std::int64_t at) {
    const T* row = x + at;
    T* out = y + at;
    A largest = static_cast<A>(row[0]);
    for (std::int64_t j = 1; j < n; ++j) {
      const A v = static_cast<A>(row[j * inner]);
      largest = v > largest ? v : largest;
    }
    if constexpr (sizeof(A) == sizeof(T)) {  // each exp() is taken once
      A sum = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        const A e = std::exp(row[j * inner] - largest);
        out[j * inner] = e;
        sum += e;
      }
      const A factor = A(1) / sum;
      for (std::int64_t j = 0; j < n; ++j) out[j * inner] *= factor;
    } else {  // 16-bit outputs cannot hold what is to be scaled
      const A factor = A(1) / softmax_row(row, n, inner).sum;
      for (std::int64_t j = 0; j < n; ++j)
        out[j * inner] = static_cast<T>(std::exp(static_cast<A>(row[j * inner]) - largest) * factor);
    }
  });
}

/// y = log(softmax(x)). y may be x.
template <class T>
void log_softmax(const T* x, T* y, std::int64_t outer, std::int64_t n, std::int64_t inner) {
  using A = Accumulator<T>;
  for_each_row(outer, n, inner, [&](std::int64_t at) {
    const SoftmaxRow<A> row = softmax_row(x + at, n, inner);
    const A log_sum = std::log(row.sum);
    for (std::int64_t j = 0; j < n; ++j)
      y[at + j * inner] = static_cast<T>(static_cast<A>(x[at + j * inner]) - row.largest - log_sum);
  });
}

/// dx = y (dy - sum(dy y)), from the output y. dx may be dy.
template <class T>
void softmax_backward(const T* y, const T* dy, T* dx, std::int64_t outer, std::int64_t n, std::int64_t inner) {
  using A = Accumulator<T>;
  for_each_row(outer, n, inner, [&](std::int64_t at) {
    A dot = 0;
    for (std::int64_t j = 0; j < n; ++j) dot += static_cast<A>(dy[at + j * inner]) * static_cast<A>(y[at + j * inner]);
    for (std::int64_t j = 0; j < n; ++j) {
      const std::int64_t k = at + j * inner;
      dx[k] = static_cast<T>(static_cast<A>(y[k]) * (static_cast<A>(dy[k]) - dot));
    }
  });
}

/// dx = dy - exp(y) sum(dy), from the output y. dx may be dy.
template <class T>
void log_softmax_backward(const T* y, const T* dy, T* dx, std::int64_t outer, std::int64_t n, std::int64_t inner) {
  using A = Accumulator<T>;
  for_each_row(outer, n, inner, [&](std::int64_t at) {
    A sum = 0;
    for (std::int64_t j = 0; j < n; ++j) sum += static_cast<A>(dy[at + j * inner]);
    for (std::int64_t j = 0; j < n; ++j) {
      const std::int64_t k = at + j * inner;
      dx[k] = static_cast<T>(static_cast<A>(dy[k]) - std::exp(static_cast<A>(y[k])) * sum);
    }
  });
}

}  // namespace shardwise::detail::kernels
