// softmax, log_softmax and cross_entropy, with their placement rules and gradients. The class dimension is whole on
// every rank. Layer: ops.
#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <utility>

#include <shardwise/ops/kernels/cross_entropy.hpp>
#include <shardwise/ops/kernels/softmax.hpp>
#include <shardwise/ops/rules.hpp>

namespace shardwise {

/// How the losses of rows become one. PyTorch: `reduction="none" | "mean" | "sum"`.
enum class Reduction { none, mean, sum };

template <class T, class Space = Host>
struct CrossEntropyOptions {
  /// One weight a class, plain, where the logits are; undefined: all 1.
  Tensor<T, 1, Space> weight = {};
  /// Rows with this target count nothing.
  std::int64_t ignore_index = -100;
  /// In [0, 1].
  double label_smoothing = 0.0;
};

namespace detail {

template <class T, class Space>
struct SoftmaxNode final : Node {
  SoftmaxNode(bool log, Buffer result, std::int64_t o, std::int64_t size, std::int64_t i)
      : Node(log ? "log_softmax" : "softmax"), is_log(log), y(std::move(result)), outer(o), n(size), inner(i) {}
  void backward(GradSlot& out) override {
    Buffer dx = Space::allocated(static_cast<std::size_t>(outer * n * inner) * sizeof(T));
    if constexpr (!is_host<Space>)
      typename Space::Compute(y, out.grad)
          .softmax_backward(dtype_of<T>, is_log, y.data(), out.grad.data(), dx.data(), outer, n, inner);
    else if (is_log)
      kernels::log_softmax_backward(y.as<const T>(), out.grad.as<const T>(), dx.as<T>(), outer, n, inner);
    else
      kernels::softmax_backward(y.as<const T>(), out.grad.as<const T>(), dx.as<T>(), outer, n, inner);
    accumulate(*inputs[0], std::move(dx), out.pending);
  }
  bool is_log;
  Buffer y;
  std::int64_t outer;
  std::int64_t n;
  std::int64_t inner;
};

template <std::size_t N>
constexpr PlacementRule<N> whole_dimension_rule(const PlacementList<N>& list, int d) {
  return rule_for_each_axis(list, [d](PlacementValue p) { return whole_dimension_rule(p, d); });
}

template <bool Log, int D, class T, std::size_t R, class L>
BasicTensor<T, R, L> softmax_along(const BasicTensor<T, R, L>& x) {
  constexpr int d = D < 0 ? D + static_cast<int>(R) : D;
  static_assert(d >= 0 && d < static_cast<int>(R),
                "shardwise::softmax: [O11] the dimension exists in the tensor; choose one from -rank to rank - 1");
  constexpr bool whole = whole_dimension_rule(layout_traits<L>::placements, d).ok;
  static_assert(
      whole,
      "shardwise::softmax: [O12] the dimension is whole on every rank and nothing is pending; redistribute<Replicate>(x), "
      "or shard another dimension");
  auto y = make_tensor<T, R, L>(x.impl()->global, x.mesh_state());
  const Extents& shape = x.impl()->local;
  const std::int64_t outer = shape.elements(0, d);
  const std::int64_t inner = shape.elements(d + 1, shape.rank);
  if constexpr (!on_host<L>)
    typename space_of<L>::Compute(x.impl()->buffer)
        .softmax(dtype_of<T>, Log, x.device_data(), y.device_data(), outer, shape[d], inner);
  else if constexpr (Log)
    kernels::log_softmax(x.data(), y.data(), outer, shape[d], inner);
  else
    kernels::softmax(x.data(), y.data(), outer, shape[d], inner);
  if (wants_grad(x)) {
    auto node = make_node<SoftmaxNode<T, space_of<L>>>(Log, y.impl()->buffer, outer, shape[d], inner);
    node->inputs.push_back(x.impl()->slot);
    record(y, std::move(node));
  }
  return y;
}

template <class T, class Space>
struct CrossEntropyNode final : Node {
  CrossEntropyNode() : Node("cross_entropy") {}
  void backward(GradSlot& out) override {
    const std::int64_t size = arguments.outer * arguments.classes * arguments.inner;
    Buffer dx = Space::allocated(static_cast<std::size_t>(size) * sizeof(T));
    const T* g = out.grad.as<const T>();
    const auto* kept = saved.as<const Accumulator<T>>();
    if constexpr (!is_host<Space>) {
      const typename Space::Compute compute(logits, target, weight, saved, denominator, out.grad);
      const Buffer scale = Space::allocated(sizeof(Accumulator<T>));
      if (per_row) {
        const Accumulator<T> one(1);
        compute.fill(dtype_of<Accumulator<T>>, scale.data(), &one, 1);
      } else {
        compute.loss_scale(dtype_of<T>, g, denominator.as<const double>(), scale.data());
      }
      compute.cross_entropy_backward(dtype_of<T>, arguments, kept, per_row ? g : nullptr, scale.data(), dx.data());
    } else if (per_row) {
      kernels::cross_entropy_backward<T>(arguments, kept, g, Accumulator<T>(1), dx.as<T>());
    } else {
      kernels::cross_entropy_backward<T>(arguments, kept, nullptr, static_cast<Accumulator<T>>(g[0]) * factor,
                                         dx.as<T>());
    }
    accumulate(*inputs[0], std::move(dx), pending(out.pending));
  }
  kernels::CrossEntropyArguments<T> arguments{};
  Buffer logits;
  Buffer target;
  Buffer weight;
  Buffer saved;
  bool per_row = false;
  Accumulator<T> factor{1};
  Buffer denominator;  // on a device, of a mean: one double
  PendingRule pending;
};

// Logits may be sharded along the batch; targets then are too, or replicated, and each rank takes its rows.
constexpr AxisRule cross_entropy_rule(PlacementValue logits, PlacementValue target, Reduction reduction) {
  if (target.is_partial() || target.is_interleaved()) return no_rule;
  if (logits.is_replicate() && target.is_replicate()) return {true, replicate_value()};
  if (!logits.is_shard(0)) return no_rule;
  if (target.is_shard() && target.dim != 0) return no_rule;
  if (reduction == Reduction::none) return {true, shard_value(0)};
  if (reduction == Reduction::mean && target.is_shard()) return no_rule;  // the number of kept rows is not known here
  return {true, partial_value()};
}

template <Reduction How, class A, class B>
constexpr auto cross_entropy_of() {
  if constexpr (same_home<A, B>)
    return rule_for_each_axis(A::placements, B::placements,
                              [](PlacementValue p, PlacementValue q) { return cross_entropy_rule(p, q, How); });
  else
    return PlacementRule<A::placements.size()>{true, A::placements};
}

}  // namespace detail

/// softmax along dimension D (the last one by default), which is whole on every rank. PyTorch: `torch.softmax`.
template <int D = -1, RealElement T, std::size_t R, class L>
BasicTensor<T, R, L> softmax(const BasicTensor<T, R, L>& x) {
  return detail::softmax_along<false, D>(x);
}
/// log(softmax(x)), stably. PyTorch: `torch.log_softmax`.
template <int D = -1, RealElement T, std::size_t R, class L>
BasicTensor<T, R, L> log_softmax(const BasicTensor<T, R, L>& x) {
  return detail::softmax_along<true, D>(x);
}
/// Nothing: a dimension is known to the compiler.
template <RealElement T, std::size_t R, class L, std::integral... I>
  requires(sizeof...(I) > 0)
BasicTensor<T, R, L> softmax(const BasicTensor<T, R, L>& x, I...) {
  static_assert(detail::dimensions_are_template_arguments<I...>,
                "shardwise::softmax: [O30] the dimension stands in angle brackets: softmax<-1>(x)");
  return x;
}
template <RealElement T, std::size_t R, class L, std::integral... I>
  requires(sizeof...(I) > 0)
BasicTensor<T, R, L> log_softmax(const BasicTensor<T, R, L>& x, I...) {
  static_assert(detail::dimensions_are_template_arguments<I...>,
                "shardwise::log_softmax: [O30] the dimension stands in angle brackets: log_softmax<-1>(x)");
  return x;
}

/// Cross entropy of logits (N, C, ...) against class indices (N, ...): `cross_entropy(logits, targets)` is the mean over rows,
/// `cross_entropy<Reduction::none>` one loss a row. PyTorch: `torch.nn.functional.cross_entropy`.
///
/// Placements per axis: both replicated; or logits Shard<0> and the result a pending sum (`none`: Shard<0>), where a mean needs
/// all targets on every rank (replicated). A mean over no row is NaN with a zero gradient, as in PyTorch.
/// Throws `ShapeError` where the shapes differ, `Error` for a target that is no class.
template <Reduction How = Reduction::mean, RealElement T, std::size_t R, class LX, std::size_t RT, class LT>
auto cross_entropy(const BasicTensor<T, R, LX>& logits, const BasicTensor<std::int64_t, RT, LT>& target,
                   const CrossEntropyOptions<T, detail::space_of<LX>>& options = {}) {
  using X = BasicTensor<T, R, LX>;
  using Target = BasicTensor<std::int64_t, RT, LT>;
  static_assert(R >= 2 && RT + 1 == R, "shardwise::cross_entropy: [O13] logits are (N, C, ...) and targets (N, ...)");
  SHARDWISE_SAME_HOME("cross_entropy", X, Target);
  constexpr auto rule = detail::cross_entropy_of<How, X, Target>();
  static_assert(
      rule.ok,
      "shardwise::cross_entropy: [O14] classes are whole on every rank; logits are Replicate or Shard<0>; the mean over a sharded "
      "batch needs replicated targets; redistribute");
  constexpr std::size_t RY = How == Reduction::none ? RT : 0;
  using Y = BasicTensor<T, RY, typename detail::layout_with<LX, rule>::type>;
  if constexpr (R >= 2 && RT + 1 == R && detail::same_home<X, Target> && rule.ok) {
    detail::require_same_mesh("shardwise::cross_entropy", logits, target);
    const detail::Extents& global = logits.impl()->global;
    detail::Extents expected;
    expected.rank = static_cast<int>(RT);
    for (int d = 0, j = 0; d < static_cast<int>(R); ++d)
      if (d != 1) expected[j++] = global[d];
    SHARDWISE_REQUIRE(expected == target.impl()->global,
                      detail::text("shardwise::cross_entropy: logits of shape ", logits.shape(),
                                   " do not fit targets of shape ", target.shape()),
                      ShapeError);
    SHARDWISE_REQUIRE(options.label_smoothing >= 0 && options.label_smoothing <= 1,
                      detail::text("shardwise::cross_entropy: a label smoothing of ", options.label_smoothing,
                                   "; it lies in [0, 1]"));
    SHARDWISE_REQUIRE(!options.weight.defined() || options.weight.shape()[0] == global[1],
                      detail::text("shardwise::cross_entropy: the class weights do not fit ", global[1], " classes"),
                      ShapeError);
    const detail::Extents& local = logits.impl()->local;
    detail::kernels::CrossEntropyArguments<T> in{};
    in.outer = local[0];
    in.classes = global[1];
    in.inner = local.elements(2, local.rank);
    in.logits = logits.impl()->buffer.template as<const T>();
    in.target = target.impl()->buffer.template as<const std::int64_t>();
    in.ignore_index = options.ignore_index;
    in.label_smoothing = options.label_smoothing;
    if (options.weight.defined()) in.weight = options.weight.impl()->buffer.template as<const T>();
    const std::int64_t* const all_targets = in.target;
    bool weighs_all = false;
    if constexpr (X::distributed) {
      const std::int64_t rows = target.impl()->local[0];
      if (rows != in.outer) {  // replicated targets: every rank weighs all rows, and takes its own
        weighs_all = true;
        const std::int64_t first = in.outer == 0 ? 0 : logits.local_offset()[0];
        if (in.outer > 0) in.target += (first - target.local_offset()[0]) * in.inner;
      }
    }
    Y y = detail::make_tensor<T, RY, typename Y::layout_type>(How == Reduction::none ? expected : detail::Extents(),
                                                              logits.mesh_state());
    const bool wanted = detail::wants_grad(logits);
    using Space = detail::space_of<LX>;
    detail::Buffer saved;
    if (wanted) saved = Space::allocated(static_cast<std::size_t>(in.outer * in.inner) * 2 * sizeof(Accumulator<T>));
    auto* const kept = saved.template as<Accumulator<T>>();
    T* const result = y.impl()->buffer.template as<T>();
    T* const losses = How == Reduction::none ? result : nullptr;
    Accumulator<T> factor(1);
    detail::Buffer weights;  // on a device, of a mean: the sum of all rows' weights
    if constexpr (detail::is_host<Space>) {
      double all_weights = 0;
      if (weighs_all) {
        detail::kernels::check_targets(all_targets, target.size(), in.classes, in.ignore_index);
        for (std::int64_t i = 0; i < target.size(); ++i)
          if (all_targets[i] != in.ignore_index)
            all_weights += in.weight != nullptr ? static_cast<double>(in.weight[all_targets[i]]) : 1.0;
      }
      const auto sums = detail::kernels::cross_entropy<T>(in, losses, kept);
      const double denominator = weighs_all ? all_weights : sums.weight;
      if constexpr (How == Reduction::sum) result[0] = static_cast<T>(static_cast<Accumulator<T>>(sums.loss));
      if constexpr (How == Reduction::mean) {
        result[0] = static_cast<T>(static_cast<Accumulator<T>>(sums.loss / denominator));
        factor = static_cast<Accumulator<T>>(1.0 / denominator);
      }
    } else {
      const typename Space::Compute compute(logits.impl()->buffer, target.impl()->buffer);
      if (options.weight.defined()) compute.use(options.weight.impl()->buffer);
      detail::Buffer sums;
      if (How != Reduction::none) sums = Space::allocated(2 * sizeof(double));
      compute.cross_entropy(dtype_of<T>, in, losses, kept, sums.template as<double>());
      if constexpr (How == Reduction::mean) {
        weights = Space::allocated(sizeof(double));
        if (weighs_all)
          compute.kept_weight(dtype_of<T>, all_targets, target.size(), in.classes, in.weight, in.ignore_index,
                              weights.template as<double>());
        else
          compute.copy_rows(sizeof(double), sums.template as<double>() + 1, 1, weights.data(), 1, 1, 1);
      }
      if constexpr (How != Reduction::none)
        compute.reduced_loss(dtype_of<T>, sums.template as<const double>(), weights.template as<const double>(),
                             result);
    }
    if (wanted) {
      auto node = detail::make_node<detail::CrossEntropyNode<T, Space>>();
      node->arguments = in;
      node->logits = logits.impl()->buffer;
      node->target = target.impl()->buffer;
      if (options.weight.defined()) node->weight = options.weight.impl()->buffer;
      node->saved = std::move(saved);
      node->per_row = How == Reduction::none;
      node->factor = factor;
      node->denominator = std::move(weights);
      node->pending = detail::pending_rule(X::placements, rule.out);
      node->inputs.push_back(logits.impl()->slot);
      detail::record(y, std::move(node));
    }
    return y;
  } else {
    return Y();
  }
}
template <Reduction How = Reduction::mean, RealElement T, std::size_t R, class LX, Element TT, std::size_t RT, class LT>
  requires(!std::is_same_v<TT, std::int64_t>)
auto cross_entropy(const BasicTensor<T, R, LX>&, const BasicTensor<TT, RT, LT>&, const CrossEntropyOptions<T>& = {}) {
  static_assert(
      std::is_same_v<TT, std::int64_t>,
      "shardwise::cross_entropy: [O28] a target is the std::int64_t index of a class (there are no targets of "
      "probabilities); cast<std::int64_t>(target)");
  return Tensor<T, 0>();
}

}  // namespace shardwise
