// The one loop of the elementwise kernels: in blocks, so that it becomes SIMD code at -O2 too. Layer: ops.
#pragma once

#include <cstdint>

#include <shardwise/base/dtype.hpp>

namespace shardwise::detail::kernels {

/// out[i] = f(i) for i in [0, n). What f reads may be `out` itself, at the same index.
///
/// At -O2 g++ 12 turns only loops of a constant length whose stores come after all loads into SIMD code (4096 floats
/// added: 1600 ns as a plain loop, with __restrict too; 820 in blocks; 540 at -O3, where blocks change nothing).
template <class T, class F>
void each(T* out, std::int64_t n, F f) {
  constexpr int block = 16;
  std::int64_t i = 0;
  for (; i + block <= n; i += block) {
    T value[block];
    for (int j = 0; j < block; ++j) value[j] = static_cast<T>(f(i + j));
    for (int j = 0; j < block; ++j) out[i + j] = value[j];
  }
  const int rest = static_cast<int>(n - i);
  for (int j = 0; j < rest; ++j) out[i + j] = static_cast<T>(f(i + j));
}

/// y[i] = f(x[i]), computed in Accumulator<T>. y may be x.
template <class T, class F>
void map(const T* x, T* y, std::int64_t n, F f) {
  using A = Accumulator<T>;
  each(y, n, [x, f](std::int64_t i) { return f(static_cast<A>(x[i])); });
}

/// out[i] = f(a[i], b[i]), computed in Accumulator<T>. out may be a or b.
template <class T, class F>
void zip(const T* a, const T* b, T* out, std::int64_t n, F f) {
  using A = Accumulator<T>;
  each(out, n, [a, b, f](std::int64_t i) { return f(static_cast<A>(a[i]), static_cast<A>(b[i])); });
}

}  // namespace shardwise::detail::kernels
