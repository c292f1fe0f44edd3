// layer_norm and rms_norm over the last dimension of (rows, width), forward and backward. Layer: ops.
#pragma once

#include <cmath>
#include <cstdint>

#include <shardwise/base/dtype.hpp>
#include <shardwise/ops/kernels/loop.hpp>
#include <shardwise/ops/kernels/reduce.hpp>

namespace shardwise::detail::kernels {

// sum over i of f(i), in eight chains.
template <class A, class F>
A sum_over(std::int64_t n, F f) {
  constexpr int lanes = 8;
  A lane[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) lane[j] += f(i + j);
  const int rest = static_cast<int>(n - i);
  for (int j = 0; j < rest; ++j) lane[j] += f(i + j);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// y = (x - m) s weight + bias, weight and bias where there are any.
template <class T>
void norm_write(const T* x, Accumulator<T> m, Accumulator<T> s, const T* weight, const T* bias, std::int64_t width,
                T* y) {
  using A = Accumulator<T>;
  const auto h = [x, m, s](std::int64_t i) { return (static_cast<A>(x[i]) - m) * s; };
  if (weight == nullptr && bias == nullptr) {
    each(y, width, h);
  } else if (bias == nullptr) {
    each(y, width, [h, weight](std::int64_t i) { return h(i) * static_cast<A>(weight[i]); });
  } else if (weight == nullptr) {
    each(y, width, [h, bias](std::int64_t i) { return h(i) + static_cast<A>(bias[i]); });
  } else {
    each(y, width,
         [h, weight, bias](std::int64_t i) { return h(i) * static_cast<A>(weight[i]) + static_cast<A>(bias[i]); });
  }
}

/// y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(biased variance + eps). weight and bias (width) may be null;
/// mean and rstd (rows) are kept for the backward pass.
template <class T>
void layer_norm(const T* x, const T* weight, const T* bias, double eps, std::int64_t rows, std::int64_t width, T* y,
                Accumulator<T>* mean, Accumulator<T>* rstd) {
  using A = Accumulator<T>;
  for (std::int64_t r = 0; r < rows; ++r, x += width, y += width) {
    const A m = sum_over<A>(width, [x](std::int64_t i) { return static_cast<A>(x[i]); }) / static_cast<A>(width);
    const A variance = sum_over<A>(width,
                                   [x, m](std::int64_t i) {
                                     const A d = static_cast<A>(x[i]) - m;
                                     return d * d;
                                   }) /
                       static_cast<A>(width);
    const A s = A(1) / std::sqrt(variance + static_cast<A>(eps));
    mean[r] = m;
    rstd[r] = s;
    norm_write(x, m, s, weight, bias, width, y);
  }
}

/// y = x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps). weight may be null; rstd is kept for the backward pass.
template <class T>
void rms_norm(const T* x, const T* weight, double eps, std::int64_t rows, std::int64_t width, T* y,
              Accumulator<T>* rstd) {
  using A = Accumulator<T>;
  for (std::int64_t r = 0; r < rows; ++r, x += width, y += width) {
    const A square = sum_over<A>(width,
                                 [x](std::int64_t i) {
                                   const A v = static_cast<A>(x[i]);
                                   return v * v;
                                 }) /
                     static_cast<A>(width);
    const A s = A(1) / std::sqrt(square + static_cast<A>(eps));
    rstd[r] = s;
    norm_write<T>(x, A(0), s, weight, nullptr, width, y);
  }
}

// With h = (x - mean) rstd and g = dy weight: dx = rstd (g - mean(g) - h mean(g h)). Without a mean (null, rms_norm)
// the term mean(g) is absent.
template <bool Weighted, class T>
void norm_backward_input(const T* x, const T* weight, const T* dy, const Accumulator<T>* mean,
                         const Accumulator<T>* rstd, std::int64_t rows, std::int64_t width, T* dx) {
  using A = Accumulator<T>;
  for (std::int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width) {
    const A m = mean != nullptr ? mean[r] : A(0);
    const A s = rstd[r];
    const auto g = [=](std::int64_t i) {
      if constexpr (Weighted)
        return static_cast<A>(dy[i]) * static_cast<A>(weight[i]);
      else
        return static_cast<A>(dy[i]);
    };
    const auto h = [x, m, s](std::int64_t i) { return (static_cast<A>(x[i]) - m) * s; };
    const A mean_g = mean != nullptr ? sum_over<A>(width, g) / static_cast<A>(width) : A(0);
    const A mean_gh = sum_over<A>(width, [g, h](std::int64_t i) { return g(i) * h(i); }) / static_cast<A>(width);
    each(dx, width, [g, h, s, mean_g, mean_gh](std::int64_t i) { return s * (g(i) - mean_g - h(i) * mean_gh); });
  }
}

template <class T>
void norm_backward_input(const T* x, const T* weight, const T* dy, const Accumulator<T>* mean,
                         const Accumulator<T>* rstd, std::int64_t rows, std::int64_t width, T* dx) {
  if (weight != nullptr)
    norm_backward_input<true>(x, weight, dy, mean, rstd, rows, width, dx);
  else
    norm_backward_input<false>(x, weight, dy, mean, rstd, rows, width, dx);
}

// dweight = sum over rows of dy h. In strips of columns, so that the sums are kept in double on the stack.
template <class T>
void norm_backward_weight(const T* x, const T* dy, const Accumulator<T>* mean, const Accumulator<T>* rstd,
                          std::int64_t rows, std::int64_t width, T* dweight) {
  using A = Accumulator<T>;
  constexpr std::int64_t strip = 256;
  for (std::int64_t from = 0; from < width; from += strip) {
    const std::int64_t columns = width - from < strip ? width - from : strip;
    double sum[strip];
    for (std::int64_t i = 0; i < columns; ++i) sum[i] = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* row = x + r * width + from;
      const T* gradient = dy + r * width + from;
      const A m = mean != nullptr ? mean[r] : A(0);
      const A s = rstd[r];
      for (std::int64_t i = 0; i < columns; ++i)
        sum[i] += static_cast<double>(static_cast<A>(gradient[i]) * ((static_cast<A>(row[i]) - m) * s));
    }
    for (std::int64_t i = 0; i < columns; ++i) dweight[from + i] = static_cast<T>(static_cast<A>(sum[i]));
  }
}

/// Gradients of layer_norm, written; null where not wanted. dx may not be dy.
template <class T>
void layer_norm_backward(const T* x, const T* weight, const T* dy, const Accumulator<T>* mean,
                         const Accumulator<T>* rstd, std::int64_t rows, std::int64_t width, T* dx, T* dweight,
                         T* dbias) {
  if (dx != nullptr) norm_backward_input(x, weight, dy, mean, rstd, rows, width, dx);
  if (dweight != nullptr) norm_backward_weight(x, dy, mean, rstd, rows, width, dweight);
  if (dbias != nullptr) sum_dim(dy, dbias, 1, rows, width);
}

/// Gradients of rms_norm, written; null where not wanted. dx may not be dy.
template <class T>
void rms_norm_backward(const T* x, const T* weight, const T* dy, const Accumulator<T>* rstd, std::int64_t rows,
                       std::int64_t width, T* dx, T* dweight) {
  const Accumulator<T>* no_mean = nullptr;
  if (dx != nullptr) norm_backward_input(x, weight, dy, no_mean, rstd, rows, width, dx);
  if (dweight != nullptr) norm_backward_weight(x, dy, no_mean, rstd, rows, width, dweight);
}

}  // namespace shardwise::detail::kernels
