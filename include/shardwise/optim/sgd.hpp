// optim::SGD, with momentum, dampening, weight decay and Nesterov's variant. Works on local elements: an update needs no
// communication once gradients are settled. Layer: optim.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/sgd_step.hpp>
#include <shardwise/base/warning.hpp>
#include <shardwise/comm/reduce.hpp>
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
// (A template, so that a unit that trains nothing compiles none of it.)
template <class = void>
class BasicSGD {
 public:
  /// Throws `Error` for a negative rate, momentum or decay, and for Nesterov without momentum or with dampening.
  [[gnu::cold]] explicit BasicSGD(ParameterList parameters, const SGDOptions& options = {})
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

  /// Settles pending gradients, then updates. Ranks: all that share a pending gradient. Warns where no parameter has a gradient:
  /// an optimizer made before `parallelize_module` holds the parameters of the model on one device, which nobody trains.
  void step() {
    settle_gradients(parameters_);
    bool held = false;  // a rank outside the mesh holds no element, and needs no gradient
    bool any = false;
    for (const ParameterHandle& p : parameters_) {
      held = held || p.impl->local.elements() > 0;
      any = any || (p.impl->slot != nullptr && p.impl->slot->has_grad());
    }
    if (held && !any)
      warn(
          "optim::SGD: no parameter has a gradient, so that the step changes nothing; run backward() before it, and make the "
          "optimizer of the parameters that are trained: parameters(model) of what parallelize_module gave");
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const ParameterHandle& p = parameters_[i];
      if (p.impl->slot == nullptr || !p.impl->slot->has_grad()) continue;
      update(p.dtype, p.impl->buffer, *p.impl->slot, p.impl->local.elements(), momentum_[i]);
    }
  }
  void zero_grad() { shardwise::zero_grad(parameters_); }
  const ParameterList& parameters() const { return parameters_; }
  /// May be changed between steps (a schedule of the learning rate).
  SGDOptions& options() { return options_; }

 private:
  // The momentum of a parameter has its element type; 16-bit types are updated in float, block by block.
  void update(DType dtype, const detail::Buffer& parameter, const detail::GradSlot& slot, std::int64_t n,
              detail::Buffer& momentum) const {
    const std::size_t element = size_of(dtype);
    const std::size_t bytes = static_cast<std::size_t>(n) * element;
    const detail::GradMemory* const elsewhere = slot.memory;
    const bool with_momentum = options_.momentum != 0;
    const bool first = with_momentum && !momentum;
    if (first) momentum = elsewhere != nullptr ? elsewhere->allocate(bytes) : detail::Buffer(bytes);
    const double sign = options_.maximize ? -1 : 1;
    const detail::SgdStep step{.rate = sign * options_.lr,
                               .sign = sign,
                               .decay = options_.weight_decay,
                               .momentum = options_.momentum,
                               .rest = 1 - options_.dampening,
                               .nesterov = options_.nesterov,
                               .first = first};
    if (elsewhere != nullptr)
      return elsewhere->descend(dtype, parameter, slot.grad, with_momentum ? momentum : detail::Buffer(), n, step);
    std::byte* const p = parameter.data();
    const std::byte* const g = slot.grad.data();
    std::byte* const b = with_momentum ? momentum.data() : nullptr;
    if (dtype == DType::float32) return update(as<float>(p), as<const float>(g), as<float>(b), n, step);
    if (dtype == DType::float64) return update(as<double>(p), as<const double>(g), as<double>(b), n, step);
    // A complex number goes down as the pair of reals that it is.
    if (dtype == DType::complex64) return update(as<float>(p), as<const float>(g), as<float>(b), 2 * n, step);
    if (dtype == DType::complex128) return update(as<double>(p), as<const double>(g), as<double>(b), 2 * n, step);
    if (dtype != DType::bfloat16 && dtype != DType::float16) return;  // integers have no gradient
    const detail::ReduceKernels& kernels = detail::reduce_kernels_of(dtype);
    constexpr std::int64_t block = 256;
    float values[3][block] = {};
    for (std::int64_t at = 0; at < n; at += block) {
      const std::int64_t m = n - at < block ? n - at : block;
      const std::size_t offset = static_cast<std::size_t>(at) * element;
      kernels.load(values[0], p + offset, m);
      kernels.load(values[1], g + offset, m);
      if (b != nullptr && !first) kernels.load(values[2], b + offset, m);
      update(values[0], values[1], b != nullptr ? values[2] : nullptr, m, step);
      kernels.store(p + offset, values[0], m);
      if (b != nullptr) kernels.store(b + offset, values[2], m);
    }
  }
  template <class T, class Byte>
  static T* as(Byte* bytes) {
    return reinterpret_cast<T*>(bytes);
  }

  template <class T>
  static void update(T* __restrict p, const T* __restrict g, T* __restrict b, std::int64_t n,
                     const detail::SgdStep& factors) {
    const detail::SgdStepOf<T> step(factors);
    if (b == nullptr)
      for (std::int64_t i = 0; i < n; ++i) p[i] = step.plain(p[i], g[i]);
    else
      for (std::int64_t i = 0; i < n; ++i) p[i] = step.with_momentum(p[i], g[i], b[i]);
  }

  ParameterList parameters_;
  SGDOptions options_;
  detail::List<detail::Buffer> momentum_;
};
using SGD = BasicSGD<>;

}  // namespace shardwise::optim
