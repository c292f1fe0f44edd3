// optim::SGD, with momentum, dampening, weight decay and Nesterov's variant. Works on local elements: an update needs no
// communication once gradients are settled. Layer: optim.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/nn/visit.hpp>

namespace shardwise::optim {

/// Fields and defaults as PyTorch's.
struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool maximize = false;
};

/// Stochastic gradient descent. PyTorch: `torch.optim.SGD`, whose update this is:
/// g += weight_decay p; buf = momentum buf + (1 - dampening) g (the first time buf = g); g = nesterov ? g + momentum buf : buf;
/// p -= lr g. Parameters without a gradient are left alone.
class SGD {
 public:
  /// Throws `Error` for a negative rate, momentum or decay, and for Nesterov without momentum or with dampening.
  explicit SGD(ParameterList parameters, const SGDOptions& options = {})
      : parameters_(std::move(parameters)), options_(options), momentum_(parameters_.size()) {
    SHARDWISE_REQUIRE(options.lr >= 0,
                      detail::text("shardwise::optim::SGD: a learning rate of ", options.lr, "; it is not negative"));
    SHARDWISE_REQUIRE(options.momentum >= 0,
                      detail::text("shardwise::optim::SGD: a momentum of ", options.momentum, "; it is not negative"));
    SHARDWISE_REQUIRE(options.weight_decay >= 0, detail::text("shardwise::optim::SGD: a weight decay of ",
                                                              options.weight_decay, "; it is not negative"));
    SHARDWISE_REQUIRE(!options.nesterov || (options.momentum > 0 && options.dampening == 0),
                      "shardwise::optim::SGD: Nesterov needs a momentum and no dampening");
  }

  /// Settles pending gradients, then updates. Ranks: all that share a pending gradient.
  void step() {
    settle_gradients(parameters_);
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const ParameterHandle& p = parameters_[i];
      if (p.impl->slot == nullptr || !p.impl->slot->has_grad()) continue;
      const std::int64_t n = p.impl->local.elements();
      visit_dtype(p.dtype, [&]<class T>(T) {
        if constexpr (RealElement<T>) update(p.impl->buffer.as<T>(), p.impl->slot->grad.as<const T>(), n, momentum_[i]);
      });
    }
  }
  void zero_grad() { shardwise::zero_grad(parameters_); }
  const ParameterList& parameters() const { return parameters_; }
  /// May be changed between steps (a schedule of the learning rate).
  SGDOptions& options() { return options_; }

 private:
  template <class T>
  void update(T* __restrict p, const T* __restrict g, std::int64_t n, detail::Buffer& buffer) {
    using A = Accumulator<T>;
    const A lr = static_cast<A>(options_.maximize ? -options_.lr : options_.lr);
    const A sign = options_.maximize ? A(-1) : A(1);
    const A decay = static_cast<A>(options_.weight_decay);
    const A momentum = static_cast<A>(options_.momentum);
    const A rest = static_cast<A>(1 - options_.dampening);
    if (momentum == A(0)) {
      for (std::int64_t i = 0; i < n; ++i)
        p[i] = static_cast<T>(static_cast<A>(p[i]) - lr * (static_cast<A>(g[i]) + sign * decay * static_cast<A>(p[i])));
      return;
    }
    const bool first = !buffer;
    if (first) buffer = detail::Buffer(static_cast<std::size_t>(n) * sizeof(T));
    T* __restrict b = buffer.as<T>();
    for (std::int64_t i = 0; i < n; ++i) {
      const A gradient = static_cast<A>(g[i]) + sign * decay * static_cast<A>(p[i]);
      const A kept = first ? gradient : momentum * static_cast<A>(b[i]) + rest * gradient;
      b[i] = static_cast<T>(kept);
      p[i] = static_cast<T>(static_cast<A>(p[i]) - lr * (options_.nesterov ? gradient + momentum * kept : kept));
    }
  }

  ParameterList parameters_;
  SGDOptions options_;
  std::vector<detail::Buffer> momentum_;
};

}  // namespace shardwise::optim
