// Elementwise functions of one tensor and their derivatives, chosen by the compiler or, one switch outside the loop, at run time.
// Layer: ops.
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/scalar_functions.hpp>
#include <shardwise/ops/kernels/loop.hpp>

namespace shardwise::detail::kernels {

template <Unary F, class T>
void unary(const T* x, T* y, std::int64_t n) {
  map(x, y, n, UnaryFunction<F>());
}
// dx = f'(v) dy, where v is y or x, whichever the derivative reads.
template <Unary F, class T>
void unary_backward(const T* v, const T* dy, T* dx, std::int64_t n) {
  if constexpr (F == Unary::neg)
    map(dy, dx, n, UnaryFunction<F>());
  else
    zip(v, dy, dx, n, UnaryDerivative<F>());
}

/// y = f(x). All but `neg` need a real element type.
template <class T>
void unary(Unary f, const T* x, T* y, std::int64_t n) {
  if constexpr (RealElement<T>)
    with_unary<UnaryFunction>(f, [&](auto function) { map(x, y, n, function); });
  else if (f == Unary::neg)
    map(x, y, n, UnaryFunction<Unary::neg>());
}

/// dx = f'(x) dy, written. `relu`, `sigmoid`, `tanh`, `exp` and `sqrt` read y = f(x), the others x: the other pointer may be
/// null. dx may be dy.
template <class T>
void unary_backward(Unary f, const T* x, const T* y, const T* dy, T* dx, std::int64_t n) {
  if (f == Unary::neg) return map(dy, dx, n, UnaryFunction<Unary::neg>());
  if constexpr (RealElement<T>) {
    const T* v = unary_backward_reads_output(f) ? y : x;
    with_unary<UnaryDerivative>(f, [&]<class F>(F derivative) {
      if constexpr (!std::is_same_v<F, UnaryDerivative<Unary::neg>>) zip(v, dy, dx, n, derivative);
    });
  }
}

}  // namespace shardwise::detail::kernels
