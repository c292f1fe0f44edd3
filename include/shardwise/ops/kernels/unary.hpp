// Elementwise functions of one tensor and their derivatives: one switch outside the loop, one loop a function.
// Layer: ops.
#pragma once

#include <cmath>
#include <cstdint>

#include <shardwise/base/dtype.hpp>
#include <shardwise/ops/kernels/loop.hpp>

namespace shardwise::detail::kernels {

enum class Unary : std::uint8_t { relu, gelu, gelu_tanh, silu, sigmoid, tanh, exp, log, sqrt, neg };

template <class A>
A sigmoid(A x) {
  return A(1) / (A(1) + std::exp(-x));
}

template <class A>
inline constexpr A sqrt_half = A(0.70710678118654752440L);
template <class A>
inline constexpr A sqrt_two_over_pi = A(0.79788456080286535588L);
template <class A>
inline constexpr A inverse_sqrt_two_pi = A(0.39894228040143267794L);
template <class A>
inline constexpr A gelu_cubic = A(0.044715L);

/// y = f(x). All but `neg` need a real element type.
template <class T>
void unary(Unary f, const T* x, T* y, std::int64_t n) {
  using A = Accumulator<T>;
  if (f == Unary::neg) return map(x, y, n, [](A v) { return -v; });
  if constexpr (RealElement<T>) {
    switch (f) {
      // Written so that NaN passes through.
      case Unary::relu: return map(x, y, n, [](A v) { return v < A(0) ? A(0) : v; });
      case Unary::gelu: return map(x, y, n, [](A v) { return A(0.5) * v * (A(1) + std::erf(v * sqrt_half<A>)); });
      case Unary::gelu_tanh:
        return map(x, y, n, [](A v) {
          return A(0.5) * v * (A(1) + std::tanh(sqrt_two_over_pi<A> * (v + gelu_cubic<A> * v * v * v)));
        });
      case Unary::silu: return map(x, y, n, [](A v) { return v / (A(1) + std::exp(-v)); });
      case Unary::sigmoid: return map(x, y, n, [](A v) { return sigmoid(v); });
      case Unary::tanh: return map(x, y, n, [](A v) { return std::tanh(v); });
      case Unary::exp: return map(x, y, n, [](A v) { return std::exp(v); });
      case Unary::log: return map(x, y, n, [](A v) { return std::log(v); });
      case Unary::sqrt: return map(x, y, n, [](A v) { return std::sqrt(v); });
      case Unary::neg: break;
    }
  }
}

/// Which of its operands a derivative reads: the other pointer of `unary_backward` may be null.
constexpr bool unary_backward_reads_output(Unary f) {
  return f == Unary::relu || f == Unary::sigmoid || f == Unary::tanh || f == Unary::exp || f == Unary::sqrt;
}

/// dx = f'(x) dy, written. `relu`, `sigmoid`, `tanh`, `exp` and `sqrt` read y = f(x), the others x. dx may be dy.
template <class T>
void unary_backward(Unary f, const T* x, const T* y, const T* dy, T* dx, std::int64_t n) {
  using A = Accumulator<T>;
  if (f == Unary::neg) return map(dy, dx, n, [](A g) { return -g; });
  if constexpr (RealElement<T>) {
    switch (f) {
      case Unary::relu: return zip(y, dy, dx, n, [](A v, A g) { return v <= A(0) ? A(0) : g; });
      case Unary::gelu:
        return zip(x, dy, dx, n, [](A v, A g) {
          const A cdf = A(0.5) * (A(1) + std::erf(v * sqrt_half<A>));
          return g * (cdf + v * inverse_sqrt_two_pi<A> * std::exp(A(-0.5) * v * v));
        });
      case Unary::gelu_tanh:
        return zip(x, dy, dx, n, [](A v, A g) {
          const A t = std::tanh(sqrt_two_over_pi<A> * (v + gelu_cubic<A> * v * v * v));
          const A slope = sqrt_two_over_pi<A> * (A(1) + A(3) * gelu_cubic<A> * v * v);
          return g * (A(0.5) * (A(1) + t) + A(0.5) * v * (A(1) - t * t) * slope);
        });
      case Unary::silu:
        return zip(x, dy, dx, n, [](A v, A g) {
          const A s = sigmoid(v);
          return g * s * (A(1) + v * (A(1) - s));
        });
      case Unary::sigmoid: return zip(y, dy, dx, n, [](A v, A g) { return g * v * (A(1) - v); });
      case Unary::tanh: return zip(y, dy, dx, n, [](A v, A g) { return g * (A(1) - v * v); });
      case Unary::exp: return zip(y, dy, dx, n, [](A v, A g) { return g * v; });
      case Unary::log: return zip(x, dy, dx, n, [](A v, A g) { return g / v; });
      case Unary::sqrt: return zip(y, dy, dx, n, [](A v, A g) { return g / (A(2) * v); });
      case Unary::neg: break;
    }
  }
}

}  // namespace shardwise::detail::kernels
