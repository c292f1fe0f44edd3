// Bodies over rows: softmax, log_softmax, layer and RMS norms, cross entropy, forward and backward. Each reads a row as often as the
// formula needs and writes it once; in between everything stays with the team. Index: a row. Layer: cuda.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include <shardwise/base/dtype.hpp>
#include <shardwise/cuda/bodies/index.hpp>

namespace shardwise::detail::device {

/// Rows of n elements `inner` apart, of (outer, n, inner).
struct RowShape {
  std::int64_t n;
  Divider inner;
  SHARDWISE_HOST_DEVICE std::int64_t first(std::int64_t row) const {
    const std::int64_t outer = inner.divide(row);
    return outer * n * inner.divisor + (row - outer * inner.divisor);
  }
};

template <class A>
struct Greater {
  SHARDWISE_HOST_DEVICE A operator()(A a, A b) const { return b > a ? b : a; }
};
template <class A>
struct Plus {
  SHARDWISE_HOST_DEVICE A operator()(A a, A b) const { return a + b; }
};
/// Two sums that are taken in one pass.
template <class A>
struct Pair {
  A first, second;
  friend SHARDWISE_HOST_DEVICE Pair operator+(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }
};

/// The largest element, which makes exp() safe, and the sum of exp(x - largest).
template <class T, class Team>
SHARDWISE_HOST_DEVICE Pair<Accumulator<T>> softmax_sums(const T* x, std::int64_t n, std::int64_t step,
                                                        const Team& team) {
  using A = Accumulator<T>;
  const A largest = team.reduce(
      n, -std::numeric_limits<A>::infinity(),
      [&](A& acc, std::int64_t i) { acc = Greater<A>()(acc, static_cast<A>(x[i * step])); }, Greater<A>());
  const A sum = team.reduce(
      n, A(0), [&](A& acc, std::int64_t i) { acc += std::exp(static_cast<A>(x[i * step]) - largest); }, Plus<A>());
  return {largest, sum};
}

template <class T>
struct SoftmaxBody {
  static constexpr std::size_t shared_bytes = 0;
  bool log;
  const T* x;
  T* y;  // may be x
  RowShape shape;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row, const Team& team) const {
    using A = Accumulator<T>;
    const std::int64_t step = shape.inner.divisor;
    const T* const from = x + shape.first(row);
    T* const to = y + shape.first(row);
    const Pair<A> sums = softmax_sums(from, shape.n, step, team);
    const A scale = log ? std::log(sums.second) : A(1) / sums.second;
    team.each(shape.n, [&](std::int64_t i) {
      const A v = static_cast<A>(from[i * step]) - sums.first;
      to[i * step] = static_cast<T>(log ? v - scale : std::exp(v) * scale);
    });
  }
};

/// dx = y (dy - sum(dy y)) or, of logarithms, dy - exp(y) sum(dy).
template <class T>
struct SoftmaxGradientBody {
  static constexpr std::size_t shared_bytes = 0;
  bool log;
  const T* y;
  const T* dy;
  T* dx;  // may be dy
  RowShape shape;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row, const Team& team) const {
    using A = Accumulator<T>;
    const std::int64_t step = shape.inner.divisor, first = shape.first(row);
    const T* const value = y + first;
    const T* const g = dy + first;
    T* const to = dx + first;
    const A sum = team.reduce(
        shape.n, A(0),
        [&](A& acc, std::int64_t i) {
          acc += log ? static_cast<A>(g[i * step]) : static_cast<A>(g[i * step]) * static_cast<A>(value[i * step]);
        },
        Plus<A>());
    team.each(shape.n, [&](std::int64_t i) {
      const A v = static_cast<A>(value[i * step]), d = static_cast<A>(g[i * step]);
      to[i * step] = static_cast<T>(log ? d - std::exp(v) * sum : v * (d - sum));
    });
  }
};

/// y = (x - mean) rstd weight + bias; without a mean (null, RMS): y = x rstd weight. weight and bias may be null.
template <class T>
struct NormBody {
  using A = Accumulator<T>;
  static constexpr std::size_t shared_bytes = 0;
  const T* x;
  const T* weight;
  const T* bias;
  A eps;
  std::int64_t width;
  T* y;
  A* mean;  // (rows), as rstd: for the backward pass
  A* rstd;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row, const Team& team) const {
    const T* const from = x + row * width;
    T* const to = y + row * width;
    A m = A(0);
    if (mean != nullptr)
      m = team.reduce(
              width, A(0), [&](A& acc, std::int64_t i) { acc += static_cast<A>(from[i]); }, Plus<A>()) /
          static_cast<A>(width);
    const A square = team.reduce(
        width, A(0),
        [&](A& acc, std::int64_t i) {
          const A d = static_cast<A>(from[i]) - m;
          acc += d * d;
        },
        Plus<A>());
    const A s = A(1) / std::sqrt(square / static_cast<A>(width) + eps);
    team.once([&] {
      if (mean != nullptr) mean[row] = m;
      rstd[row] = s;
    });
    team.each(width, [&](std::int64_t i) {
      A v = (static_cast<A>(from[i]) - m) * s;
      if (weight != nullptr) v *= static_cast<A>(weight[i]);
      if (bias != nullptr) v += static_cast<A>(bias[i]);
      to[i] = static_cast<T>(v);
    });
  }
};

/// With h = (x - mean) rstd and g = dy weight: dx = rstd (g - mean(g) - h mean(g h)); without a mean the term mean(g) is absent.
template <class T>
struct NormGradientBody {
  using A = Accumulator<T>;
  static constexpr std::size_t shared_bytes = 0;
  const T* x;
  const T* weight;
  const T* dy;
  const A* mean;  // null: RMS
  const A* rstd;
  std::int64_t width;
  T* dx;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row, const Team& team) const {
    const T* const from = x + row * width;
    const T* const gradient = dy + row * width;
    T* const to = dx + row * width;
    const A m = mean != nullptr ? mean[row] : A(0), s = rstd[row];
    const auto g = [&](std::int64_t i) {
      const A d = static_cast<A>(gradient[i]);
      return weight != nullptr ? d * static_cast<A>(weight[i]) : d;
    };
    const auto h = [&](std::int64_t i) { return (static_cast<A>(from[i]) - m) * s; };
    const Pair<A> sums = team.reduce(
        width, Pair<A>{A(0), A(0)},
        [&](Pair<A>& acc, std::int64_t i) {
          const A v = g(i);
          acc.first += v;
          acc.second += v * h(i);
        },
        Plus<Pair<A>>());
    const A mean_g = mean != nullptr ? sums.first / static_cast<A>(width) : A(0);
    const A mean_gh = sums.second / static_cast<A>(width);
    team.each(width, [&](std::int64_t i) { to[i] = static_cast<T>(s * (g(i) - mean_g - h(i) * mean_gh)); });
  }
};

/// What the gradient of a norm's weight is the sum of, over rows: dy h.
template <class T>
struct NormWeightLoad {
  using A = Accumulator<T>;
  const T* x;
  const T* dy;
  const A* mean;  // null: RMS
  const A* rstd;
  SHARDWISE_HOST_DEVICE double at(std::int64_t index, std::int64_t row) const {
    const A m = mean != nullptr ? mean[row] : A(0);
    return static_cast<double>(static_cast<A>(dy[index]) * ((static_cast<A>(x[index]) - m) * rstd[row]));
  }
};

/// Cross entropy of logits (outer, classes, inner) against class indices (outer, inner), as cross_entropy of the host. A target that
/// is neither a class nor ignore_index gives NaN and is noted in `invalid` (row + 1; any one of several).
template <class T>
struct CrossEntropyShape {
  RowShape shape;
  const T* logits;
  const std::int64_t* target;
  const T* weight;  // (classes), or null: all ones
  std::int64_t ignore_index;
  Accumulator<T> smoothing;

  SHARDWISE_HOST_DEVICE Accumulator<T> weight_of(std::int64_t c) const {
    return weight != nullptr ? static_cast<Accumulator<T>>(weight[c]) : Accumulator<T>(1);
  }
};

template <class T>
struct CrossEntropyBody {
  using A = Accumulator<T>;
  static constexpr std::size_t shared_bytes = 0;
  CrossEntropyShape<T> in;
  T* loss;  // (outer, inner), or null
  A* saved;  // (outer, inner, 2), or null: largest logit, logarithm of the sum of exponentials
  double* terms;  // (2, outer, inner), or null: loss and weight of each row, what a mean is made of
  std::int64_t rows;
  std::int64_t* invalid;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row, const Team& team) const {
    const std::int64_t y = in.target[row], n = in.shape.n, step = in.shape.inner.divisor;
    if (y == in.ignore_index || y < 0 || y >= n) {
      const bool bad = y != in.ignore_index;
      team.once([&] {
        put(row, bad ? std::numeric_limits<A>::quiet_NaN() : A(0), A(0), A(0), A(0));
        if (bad && invalid != nullptr) *invalid = row + 1;
      });
      return;
    }
    const T* const x = in.logits + in.shape.first(row);
    const Pair<A> sums = softmax_sums(x, n, step, team);
    const A log_sum = std::log(sums.second);
    const A w = in.weight_of(y);
    A value = -w * (static_cast<A>(x[y * step]) - sums.first - log_sum);
    if (in.smoothing != A(0)) {
      const A smooth = team.reduce(
          n, A(0),
          [&](A& acc, std::int64_t c) {
            acc -= in.weight_of(c) * (static_cast<A>(x[c * step]) - sums.first - log_sum);
          },
          Plus<A>());
      value = (A(1) - in.smoothing) * value + in.smoothing / static_cast<A>(n) * smooth;
    }
    team.once([&] { put(row, value, w, sums.first, log_sum); });
  }

 private:
  SHARDWISE_HOST_DEVICE void put(std::int64_t row, A value, A w, A largest, A log_sum) const {
    if (loss != nullptr) loss[row] = static_cast<T>(value);
    if (terms != nullptr) {
      terms[row] = static_cast<double>(value);
      terms[rows + row] = static_cast<double>(w);
    }
    if (saved != nullptr) {
      saved[2 * row] = largest;
      saved[2 * row + 1] = log_sum;
    }
  }
};

/// dlogits = scale row_scale[row] d loss[row] / d logits. `total`: the sum of the weights of all classes.
template <class T>
struct CrossEntropyGradientBody {
  using A = Accumulator<T>;
  static constexpr std::size_t shared_bytes = 0;
  CrossEntropyShape<T> in;
  const A* saved;
  const T* row_scale;  // (outer, inner), or null: ones
  const A* scale;  // one number on the device
  T* dlogits;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row, const Team& team) const {
    const std::int64_t y = in.target[row], n = in.shape.n, step = in.shape.inner.divisor;
    T* const dx = dlogits + in.shape.first(row);
    if (y == in.ignore_index) {
      team.each(n, [&](std::int64_t c) { dx[c * step] = static_cast<T>(A(0)); });
      return;
    }
    const T* const x = in.logits + in.shape.first(row);
    A total = static_cast<A>(n);
    if (in.weight != nullptr && in.smoothing != A(0))
      total = static_cast<A>(team.reduce(
          n, 0.0, [&](double& acc, std::int64_t c) { acc += static_cast<double>(in.weight_of(c)); }, Plus<double>()));
    const A share = in.smoothing / static_cast<A>(n);
    const A factor = row_scale != nullptr ? *scale * static_cast<A>(row_scale[row]) : *scale;
    const A hit = (A(1) - in.smoothing) * (y >= 0 && y < n ? in.weight_of(y) : std::numeric_limits<A>::quiet_NaN());
    const A mass = factor * (hit + share * total);  // the factor of the probabilities
    const A largest = saved[2 * row], log_sum = saved[2 * row + 1];
    team.each(n, [&](std::int64_t c) {
      A value = mass * std::exp(static_cast<A>(x[c * step]) - largest - log_sum);
      if (in.smoothing != A(0)) value -= factor * share * in.weight_of(c);
      if (c == y) value -= factor * hit;
      dx[c * step] = static_cast<T>(value);
    });
  }
};

}  // namespace shardwise::detail::device
