// What cuBLAS has not: products of integers, and conjugates. Layer: cuda.
#pragma once

#include <cstdint>

#include <shardwise/base/host_device.hpp>
#include <shardwise/cuda/bodies/index.hpp>

namespace shardwise::detail::device {

/// c (+)= op(a) op(b) for each of a batch, as gemm. Index: an element of c.
template <class T>
struct ProductBody {
  const T* a;  // (m, k), or (k, m) where trans_a
  const T* b;  // (k, n), or (n, k) where trans_b
  T* c;
  bool trans_a, trans_b, accumulate;
  std::int64_t m, k;
  Divider n, mn;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t at) const {
    const std::int64_t one = mn.divide(at);
    const std::int64_t rest = at - one * mn.divisor;
    const std::int64_t row = n.divide(rest), column = rest - row * n.divisor;
    const T* const left = a + one * m * k + (trans_a ? row : row * k);
    const T* const right = b + one * k * n.divisor + (trans_b ? column * k : column);
    const std::int64_t left_step = trans_a ? m : 1, right_step = trans_b ? 1 : n.divisor;
    T sum = accumulate ? c[at] : T(0);
    for (std::int64_t p = 0; p < k; ++p) sum = static_cast<T>(sum + left[p * left_step] * right[p * right_step]);
    c[at] = sum;
  }
};

/// y = the conjugate of x. Index: an element.
template <class T>
struct ConjugateBody {
  const T* x;
  T* y;
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const { y[i] = T(x[i].real, -x[i].imag); }
};

}  // namespace shardwise::detail::device
