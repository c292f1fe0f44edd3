// Cross entropy of logits (outer, classes, inner) against class indices (outer, inner), as in PyTorch. For a row with
// target y, class weights w and smoothing e:
//   loss = -(1 - e) w[y] logp[y] - (e / classes) sum_c w[c] logp[c]
// A row whose target is ignore_index gives 0. Forward returns the sums of a "mean"; the caller divides, so that a
// sharded batch can add its ranks' sums first. Layer: ops.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/kernels/softmax.hpp>

namespace shardwise::detail::kernels {

template <class T>
struct CrossEntropyArguments {
  std::int64_t outer;
  std::int64_t classes;
  std::int64_t inner;
  const T* logits;             // (outer, classes, inner)
  const std::int64_t* target;  // (outer, inner)
  const T* weight = nullptr;   // (classes), or null: all ones
  std::int64_t ignore_index = -100;
  double label_smoothing = 0;
};

/// What the rows add up to, over the rows that are kept: mean = loss / weight (NaN where every row is ignored).
struct CrossEntropySums {
  double loss = 0;
  double weight = 0;
};

/// Throws unless each target is a class or ignore_index.
inline void check_targets(const std::int64_t* target, std::int64_t rows, std::int64_t classes,
                          std::int64_t ignore_index) {
  for (std::int64_t row = 0; row < rows; ++row)
    SHARDWISE_REQUIRE((target[row] >= 0 && target[row] < classes) || target[row] == ignore_index,
                      detail::text("shardwise::cross_entropy: target ", target[row], " in row ", row, " is not one of ",
                                   classes, " classes, nor ignore_index ", ignore_index));
}

/// Writes the loss of each row to `loss` (outer, inner) and, for the backward pass, the largest logit and the logarithm
/// of the sum of exponentials to `saved` (outer, inner, 2); either may be null. Targets are checked first.
template <class T>
CrossEntropySums cross_entropy(const CrossEntropyArguments<T>& in, T* loss, Accumulator<T>* saved) {
  using A = Accumulator<T>;
  check_targets(in.target, in.outer * in.inner, in.classes, in.ignore_index);
  const A smoothing = static_cast<A>(in.label_smoothing);
  CrossEntropySums sums;
  for (std::int64_t o = 0; o < in.outer; ++o) {
    for (std::int64_t i = 0; i < in.inner; ++i) {
      const std::int64_t row = o * in.inner + i;
      const std::int64_t y = in.target[row];
      if (y == in.ignore_index) {
        if (loss != nullptr) loss[row] = T(0);
        if (saved != nullptr) saved[2 * row] = saved[2 * row + 1] = A(0);
        continue;
      }
      const T* x = in.logits + o * in.classes * in.inner + i;
      const SoftmaxRow<A> r = softmax_row(x, in.classes, in.inner);
      const A log_sum = std::log(r.sum);
      const A weight = in.weight != nullptr ? static_cast<A>(in.weight[y]) : A(1);
      A value = -weight * (static_cast<A>(x[y * in.inner]) - r.largest - log_sum);
      if (smoothing != A(0)) {
        A smooth = 0;
        for (std::int64_t c = 0; c < in.classes; ++c) {
          const A w = in.weight != nullptr ? static_cast<A>(in.weight[c]) : A(1);
          smooth -= w * (static_cast<A>(x[c * in.inner]) - r.largest - log_sum);
        }
        value = (A(1) - smoothing) * value + smoothing / static_cast<A>(in.classes) * smooth;
      }
      sums.loss += static_cast<double>(value);
      sums.weight += static_cast<double>(weight);
      if (loss != nullptr) loss[row] = static_cast<T>(value);
      if (saved != nullptr) {
        saved[2 * row] = r.largest;
        saved[2 * row + 1] = log_sum;
      }
    }
  }
  return sums;
}

/// Writes dlogits = scale * row_scale[row] * d loss[row] / d logits; ignored rows get zeros whatever the scale.
/// `row_scale` (outer, inner) is the gradient of unreduced losses, null for ones; for a mean, `scale` is the gradient
/// divided by the sum of weights over all ranks. `saved` is forward's.
template <class T>
void cross_entropy_backward(const CrossEntropyArguments<T>& in, const Accumulator<T>* saved, const T* row_scale,
                            Accumulator<T> scale, T* dlogits) {
  using A = Accumulator<T>;
  const A smoothing = static_cast<A>(in.label_smoothing);
  const A share = in.classes > 0 ? smoothing / static_cast<A>(in.classes) : A(0);
  A total = static_cast<A>(in.classes);
  if (in.weight != nullptr) total = static_cast<A>(sum_pairwise<double>(in.weight, in.classes));
  for (std::int64_t o = 0; o < in.outer; ++o) {
    for (std::int64_t i = 0; i < in.inner; ++i) {
      const std::int64_t row = o * in.inner + i;
      const std::int64_t y = in.target[row];
      const T* x = in.logits + o * in.classes * in.inner + i;
      T* dx = dlogits + o * in.classes * in.inner + i;
      if (y == in.ignore_index) {
        for (std::int64_t c = 0; c < in.classes; ++c) dx[c * in.inner] = T(0);
        continue;
      }
      const A factor = row_scale != nullptr ? scale * static_cast<A>(row_scale[row]) : scale;
      const A weight = in.weight != nullptr ? static_cast<A>(in.weight[y]) : A(1);
      const A largest = saved[2 * row], log_sum = saved[2 * row + 1];
      const A hit = (A(1) - smoothing) * weight;
      const A mass = factor * (hit + share * total);  // the factor of the probabilities
      for (std::int64_t c = 0; c < in.classes; ++c) {
        A value = mass * std::exp(static_cast<A>(x[c * in.inner]) - largest - log_sum);
        if (smoothing != A(0)) value -= factor * share * (in.weight != nullptr ? static_cast<A>(in.weight[c]) : A(1));
        if (c == y) value -= factor * hit;
        dx[c * in.inner] = static_cast<T>(value);
      }
    }
  }
}

}  // namespace shardwise::detail::kernels
