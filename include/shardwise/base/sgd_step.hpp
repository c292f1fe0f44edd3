// One step of stochastic gradient descent on one element, as the host and a device compute it. Layer: base.
#pragma once

#include <shardwise/base/host_device.hpp>

namespace shardwise::detail {

// The factors of a step, whatever the element type. `rate` is negative and `sign` -1 where the aim is a maximum, `rest` is
// 1 - dampening. `first`: there is no momentum yet, it begins as the gradient.
struct SgdStep {
  double rate = 0;
  double sign = 1;
  double decay = 0;
  double momentum = 0;
  double rest = 1;
  bool nesterov = false;
  bool first = false;
};

// The step in the type A in which elements are computed.
template <class A>
struct SgdStepOf {
  A rate, decay, momentum, rest;
  bool nesterov, first;

  explicit SgdStepOf(const SgdStep& d)
      : rate(static_cast<A>(d.rate)), decay(static_cast<A>(d.sign) * static_cast<A>(d.decay)),
        momentum(static_cast<A>(d.momentum)), rest(static_cast<A>(d.rest)), nesterov(d.nesterov), first(d.first) {}

  // p without momentum.
  SHARDWISE_HOST_DEVICE A plain(A p, A g) const { return p - rate * (g + decay * p); }
  // p, and its momentum b.
  SHARDWISE_HOST_DEVICE A with_momentum(A p, A g, A& b) const {
    const A gradient = g + decay * p;
    b = first ? gradient : momentum * b + rest * gradient;
    return p - rate * (nesterov ? gradient + momentum * b : b);
  }
};

}  // namespace shardwise::detail
