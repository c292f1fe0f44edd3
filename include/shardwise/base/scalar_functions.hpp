// The formulas of the elementwise functions and of their derivatives, written once for the loops of the host and the kernels of a
// device. Layer: base.
#pragma once

#include <cmath>
#include <cstdint>

#include <shardwise/base/host_device.hpp>

namespace shardwise::detail::kernels {

enum class Unary : std::uint8_t { relu, gelu, gelu_tanh, silu, sigmoid, tanh, exp, log, sqrt, neg };
enum class Binary : std::uint8_t { add, sub, mul, div };

template <class A>
SHARDWISE_HOST_DEVICE A sigmoid(A x) {
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

/// Whether a derivative reads the output of its function; the others read the input.
constexpr bool unary_backward_reads_output(Unary f) {
  return f == Unary::relu || f == Unary::sigmoid || f == Unary::tanh || f == Unary::exp || f == Unary::sqrt;
}

// f(v), of a real v; `neg` of any.
template <Unary F>
struct UnaryFunction {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A v) const {
    if constexpr (F == Unary::relu)  // written so that NaN passes through
      return v < A(0) ? A(0) : v;
    else if constexpr (F == Unary::gelu)
      return A(0.5) * v * (A(1) + std::erf(v * sqrt_half<A>));
    else if constexpr (F == Unary::gelu_tanh)
      return A(0.5) * v * (A(1) + std::tanh(sqrt_two_over_pi<A> * (v + gelu_cubic<A> * v * v * v)));
    else if constexpr (F == Unary::silu)
      return v / (A(1) + std::exp(-v));
    else if constexpr (F == Unary::sigmoid)
      return sigmoid(v);
    else if constexpr (F == Unary::tanh)
      return std::tanh(v);
    else if constexpr (F == Unary::exp)
      return std::exp(v);
    else if constexpr (F == Unary::log)
      return std::log(v);
    else if constexpr (F == Unary::sqrt)
      return std::sqrt(v);
    else
      return -v;
  }
};

// f'(x) g, where v is f(x) for those that read their output and x for the others.
template <Unary F>
struct UnaryDerivative {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A v, A g) const {
    if constexpr (F == Unary::relu) {
      return v <= A(0) ? A(0) : g;
    } else if constexpr (F == Unary::gelu) {
      const A cdf = A(0.5) * (A(1) + std::erf(v * sqrt_half<A>));
      return g * (cdf + v * inverse_sqrt_two_pi<A> * std::exp(A(-0.5) * v * v));
    } else if constexpr (F == Unary::gelu_tanh) {
      const A t = std::tanh(sqrt_two_over_pi<A> * (v + gelu_cubic<A> * v * v * v));
      const A slope = sqrt_two_over_pi<A> * (A(1) + A(3) * gelu_cubic<A> * v * v);
      return g * (A(0.5) * (A(1) + t) + A(0.5) * v * (A(1) - t * t) * slope);
    } else if constexpr (F == Unary::silu) {
      const A s = sigmoid(v);
      return g * s * (A(1) + v * (A(1) - s));
    } else if constexpr (F == Unary::sigmoid) {
      return g * v * (A(1) - v);
    } else if constexpr (F == Unary::tanh) {
      return g * (A(1) - v * v);
    } else if constexpr (F == Unary::exp) {
      return g * v;
    } else if constexpr (F == Unary::log) {
      return g / v;
    } else if constexpr (F == Unary::sqrt) {
      return g / (A(2) * v);
    } else {
      return -g;
    }
  }
};

template <Binary Op>
struct BinaryFunction {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A x, A y) const {
    if constexpr (Op == Binary::add)
      return x + y;
    else if constexpr (Op == Binary::sub)
      return x - y;
    else if constexpr (Op == Binary::mul)
      return x * y;
    else
      return x / y;
  }
};

// Calls g with the function that `f` names: one switch outside all loops.
template <template <Unary> class Function, class G>
decltype(auto) with_unary(Unary f, G&& g) {
  switch (f) {
    case Unary::relu: return g(Function<Unary::relu>());
    case Unary::gelu: return g(Function<Unary::gelu>());
    case Unary::gelu_tanh: return g(Function<Unary::gelu_tanh>());
    case Unary::silu: return g(Function<Unary::silu>());
    case Unary::sigmoid: return g(Function<Unary::sigmoid>());
    case Unary::tanh: return g(Function<Unary::tanh>());
    case Unary::exp: return g(Function<Unary::exp>());
    case Unary::log: return g(Function<Unary::log>());
    case Unary::sqrt: return g(Function<Unary::sqrt>());
    case Unary::neg: break;
  }
  return g(Function<Unary::neg>());
}
template <class G>
decltype(auto) with_binary(Binary op, G&& g) {
  switch (op) {
    case Binary::add: return g(BinaryFunction<Binary::add>());
    case Binary::sub: return g(BinaryFunction<Binary::sub>());
    case Binary::mul: return g(BinaryFunction<Binary::mul>());
    case Binary::div: break;
  }
  return g(BinaryFunction<Binary::div>());
}

}  // namespace shardwise::detail::kernels
