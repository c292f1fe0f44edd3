// layer_norm and rms_norm over the last dimension, with their placement rules and gradients. Layer: ops.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <utility>

#include <shardwise/ops/kernels/norm.hpp>
#include <shardwise/ops/softmax.hpp>

namespace shardwise {

struct LayerNormOptions {
  double eps = 1e-5;
};
struct RMSNormOptions {
  /// Not positive: the element type's epsilon, as in PyTorch.
  double eps = 0;
};

namespace detail {

template <class T, class Space>
struct NormNode final : Node {
  explicit NormNode(bool centred) : Node(centred ? "layer_norm" : "rms_norm"), layer(centred) {}
  void backward(GradSlot& out) override {
    using A = Accumulator<T>;
    const auto wanted = [&](std::size_t i) { return i < inputs.size() && inputs[i] != nullptr; };
    const auto buffer = [&](bool want, std::int64_t n) {
      return want ? Space::allocated(static_cast<std::size_t>(n) * sizeof(T)) : Buffer();
    };
    Buffer dx = buffer(wanted(0), rows * width);
    Buffer dweight = buffer(wanted(1), width);
    Buffer dbias = buffer(wanted(2), width);
    const A* mean = statistics.as<const A>();
    const A* rstd = mean + rows;
    const T* g = out.grad.as<const T>();
    if constexpr (!is_host<Space>)
      typename Space::Compute(x, weight, statistics, out.grad)
          .norm_backward(dtype_of<T>, x.data(), weight.data(), g, layer ? mean : nullptr, rstd, rows, width, dx.data(),
                         dweight.data(), dbias.data());
    else if (layer)
      kernels::layer_norm_backward(x.as<const T>(), weight.as<const T>(), g, mean, rstd, rows, width, dx.as<T>(),
                                   dweight.as<T>(), dbias.as<T>());
    else
      kernels::rms_norm_backward(x.as<const T>(), weight.as<const T>(), g, rstd, rows, width, dx.as<T>(),
                                 dweight.as<T>());
    if (dx) accumulate(*inputs[0], std::move(dx), px(out.pending));
    if (dweight) accumulate(*inputs[1], std::move(dweight), pw(out.pending));
    if (dbias) accumulate(*inputs[2], std::move(dbias), pw(out.pending));
  }
  bool layer;
  Buffer x;
  Buffer weight;
  Buffer statistics;
  std::int64_t rows = 0;
  std::int64_t width = 0;
  PendingRule px;
  PendingRule pw;
};

template <std::size_t N>
constexpr bool all_replicated(const PlacementList<N>& list) {
  for (const PlacementValue& p : list)
    if (!p.is_replicate()) return false;
  return true;
}

template <class T>
inline constexpr double epsilon_of = std::is_same_v<T, bfloat16> ? 0x1p-7
                                     : std::is_same_v<T, half>   ? 0x1p-10
                                                               : static_cast<double>(std::numeric_limits<T>::epsilon());

struct NoWeight {
  static constexpr PlacementList<0> placements{};
  static constexpr bool defined() { return false; }
};

template <bool Layer, class X, class W, class B>
X norm(const X& x, [[maybe_unused]] const W& weight, [[maybe_unused]] const B& bias, double eps) {
  using T = typename X::value_type;
  using A = Accumulator<T>;
  constexpr int last = static_cast<int>(X::rank) - 1;
  static_assert(
      whole_dimension_rule(X::placements, last).ok,
      "shardwise::norm: [O15] the last dimension is whole on every rank and nothing is pending; redistribute<Replicate>(x), or "
      "shard another dimension");
  constexpr bool has_weight = is_tensor<W>;
  constexpr bool has_bias = is_tensor<B>;
  const std::int64_t width = x.impl()->global[last];
  const T* w = nullptr;
  const T* b = nullptr;
  if constexpr (has_weight) {
    SHARDWISE_SAME_HOME("norm", X, W);
    static_assert(all_replicated(W::placements),
                  "shardwise::norm: [O16] weight and bias are replicated; redistribute<Replicate>(weight)");
    if (weight.defined()) {
      require_same_mesh("shardwise::norm", x, weight);
      SHARDWISE_REQUIRE(
          weight.shape()[0] == width,
          text("shardwise::norm: a weight of shape ", weight.impl()->global, " for a last dimension of ", width),
          ShapeError);
      w = weight.impl()->buffer.template as<const T>();
    }
  }
  if constexpr (has_bias) {
    if (bias.defined()) {
      SHARDWISE_REQUIRE(bias.shape()[0] == width,
                        "shardwise::norm: a bias of shape " + to_string(bias.impl()->global) +
                            " for a last dimension of " + std::to_string(width),
                        ShapeError);
      b = bias.impl()->buffer.template as<const T>();
    }
  }
  auto y = make_tensor<T, X::rank, typename X::layout_type>(x.impl()->global, x.mesh_state());
  const std::int64_t rows = x.impl()->local.elements(0, last);
  using Space = space_of<typename X::layout_type>;
  Buffer statistics = Space::allocated(static_cast<std::size_t>(2 * rows) * sizeof(A));
  A* mean = statistics.as<A>();
  if constexpr (!is_host<Space>) {
    const typename Space::Compute compute(x.impl()->buffer);
    if constexpr (has_weight)
      if (w != nullptr) compute.use(weight.impl()->buffer);
    if constexpr (has_bias)
      if (b != nullptr) compute.use(bias.impl()->buffer);
    compute.norm(dtype_of<T>, x.device_data(), w, b, eps, rows, width, y.device_data(), Layer ? mean : nullptr,
                 mean + rows);
  } else if constexpr (Layer)
    kernels::layer_norm(x.data(), w, b, eps, rows, width, y.data(), mean, mean + rows);
  else
    kernels::rms_norm(x.data(), w, eps, rows, width, y.data(), mean + rows);
  bool wanted = wants_grad(x);
  if constexpr (has_weight) wanted = wanted || (w != nullptr && wants_grad(weight));
  if constexpr (has_bias) wanted = wanted || (b != nullptr && wants_grad(bias));
  if (wanted) {
    auto node = make_node<NormNode<T, Space>>(Layer);
    node->x = x.impl()->buffer;
    node->statistics = std::move(statistics);
    node->rows = rows;
    node->width = width;
    node->px = pending_rule(X::placements, X::placements);
    node->inputs.resize(3);
    node->inputs[0] = x.impl()->slot;
    if constexpr (has_weight)
      if (w != nullptr) {
        node->weight = weight.impl()->buffer;
        node->pw = pending_rule(W::placements, X::placements);
        node->inputs[1] = weight.impl()->slot;
      }
    if constexpr (has_bias)
      if (b != nullptr) {
        node->pw = pending_rule(B::placements, X::placements);
        node->inputs[2] = bias.impl()->slot;
      }
    record(y, std::move(node));
  }
  return y;
}

}  // namespace detail

/// (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension; undefined weight or bias: none.
/// x may be sharded along other dimensions, weight and bias are replicated: their gradients are pending then.
/// PyTorch: `torch.nn.functional.layer_norm`.
template <RealElement T, std::size_t R, class L, class LW>
  requires(R >= 1)
BasicTensor<T, R, L> layer_norm(const BasicTensor<T, R, L>& x, const BasicTensor<T, 1, LW>& weight,
                                const BasicTensor<T, 1, LW>& bias, const LayerNormOptions& options = {}) {
  return detail::norm<true>(x, weight, bias, options.eps);
}
template <RealElement T, std::size_t R, class L>
  requires(R >= 1)
BasicTensor<T, R, L> layer_norm(const BasicTensor<T, R, L>& x, const LayerNormOptions& options = {}) {
  return detail::norm<true>(x, detail::NoWeight(), detail::NoWeight(), options.eps);
}
template <Element T, std::size_t R, class L, Element TW, class LW>
  requires(!std::is_same_v<T, TW>)
auto layer_norm(const BasicTensor<T, R, L>& x, const BasicTensor<TW, 1, LW>&, const BasicTensor<TW, 1, LW>&,
                const LayerNormOptions& = {}) {
  static_assert(std::is_same_v<T, TW>,
                "shardwise::layer_norm: [O20] input and weight have one element type; cast<T>(x)");
  return x;
}

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension. PyTorch: `torch.nn.functional.rms_norm`.
template <RealElement T, std::size_t R, class L, class LW>
  requires(R >= 1)
BasicTensor<T, R, L> rms_norm(const BasicTensor<T, R, L>& x, const BasicTensor<T, 1, LW>& weight,
                              const RMSNormOptions& options = {}) {
  const double eps = options.eps > 0 ? options.eps : detail::epsilon_of<T>;
  return detail::norm<false>(x, weight, detail::NoWeight(), eps);
}
template <RealElement T, std::size_t R, class L>
  requires(R >= 1)
BasicTensor<T, R, L> rms_norm(const BasicTensor<T, R, L>& x, const RMSNormOptions& options = {}) {
  const double eps = options.eps > 0 ? options.eps : detail::epsilon_of<T>;
  return detail::norm<false>(x, detail::NoWeight(), detail::NoWeight(), eps);
}
template <Element T, std::size_t R, class L, Element TW, class LW>
  requires(!std::is_same_v<T, TW>)
auto rms_norm(const BasicTensor<T, R, L>& x, const BasicTensor<TW, 1, LW>&, const RMSNormOptions& = {}) {
  static_assert(std::is_same_v<T, TW>, "shardwise::rms_norm: [O20] input and weight have one element type; cast<T>(x)");
  return x;
}

}  // namespace shardwise
