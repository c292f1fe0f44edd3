// Bodies of one number or one element an index that carry a loss and a step of training on. Layer: cuda.
#pragma once

#include <cstdint>
#include <limits>

#include <shardwise/base/sgd_step.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/host_device.hpp>

namespace shardwise::detail::device {

/// The weight of a target, 0 where it is ignored, NaN where it is no class. Index: a target.
template <class T>
struct KeptWeightBody {
  const std::int64_t* target;
  std::int64_t classes;
  const T* weight;  // (classes), or null: all ones
  std::int64_t ignore_index;
  double* out;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t y = target[i];
    if (y == ignore_index)
      out[i] = 0;
    else if (y < 0 || y >= classes)
      out[i] = std::numeric_limits<double>::quiet_NaN();
    else
      out[i] = weight != nullptr ? static_cast<double>(static_cast<Accumulator<T>>(weight[y])) : 1.0;
  }
};

/// A loss of the sums of its rows. One index.
template <class T>
struct ReducedLossBody {
  const double* loss;
  const double* weight;  // null: a sum
  T* out;
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t) const {
    out[0] = static_cast<T>(static_cast<Accumulator<T>>(weight != nullptr ? loss[0] / weight[0] : loss[0]));
  }
};

/// What the gradient of each row's loss is multiplied by. One index.
template <class T>
struct LossScaleBody {
  using A = Accumulator<T>;
  const T* gradient;
  const double* weight;  // null: a sum
  A* out;
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t) const {
    out[0] = static_cast<A>(gradient[0]) * (weight != nullptr ? static_cast<A>(1.0 / weight[0]) : A(1));
  }
};

/// Index: an element. 16-bit types step in float.
template <class T>
struct SgdBody {
  using A = Accumulator<T>;
  T* x;
  const T* gradient;
  T* momentum;  // null: none
  SgdStepOf<A> step;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    const A p = static_cast<A>(x[i]), g = static_cast<A>(gradient[i]);
    if (momentum == nullptr) {
      x[i] = static_cast<T>(step.plain(p, g));
      return;
    }
    A b = step.first ? A(0) : static_cast<A>(momentum[i]);
    x[i] = static_cast<T>(step.with_momentum(p, g, b));
    momentum[i] = static_cast<T>(b);
  }
};

}  // namespace shardwise::detail::device
