// sum and mean, over everything or one dimension, with their placement rules and gradients. Layer: ops.
#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/rules.hpp>

namespace shardwise {

namespace detail {

// A factor is a real number, in an accumulator.
template <class A>
double real_factor(A factor) {
  if constexpr (is_complex<A>)
    return static_cast<double>(factor.real());
  else
    return static_cast<double>(factor);
}

// y(outer, inner) = factor * sum over n of x(outer, n, inner). A whole sum is outer = inner = 1.
template <class T, class Space>
struct SumNode final : Node {
  SumNode(std::int64_t o, std::int64_t size, std::int64_t i, Accumulator<T> f)
      : Node("sum"), outer(o), n(size), inner(i), factor(f) {}
  void backward(GradSlot& out) override {
    Buffer dx = Space::allocated(static_cast<std::size_t>(outer * n * inner) * sizeof(T));
    if constexpr (is_host<Space>)
      kernels::spread_dim(out.grad.as<const T>(), dx.as<T>(), outer, n, inner, factor);
    else
      typename Space::Compute(out.grad).spread_dim(dtype_of<T>, out.grad.data(), dx.data(), outer, n, inner,
                                                   real_factor(factor));
    accumulate(*inputs[0], std::move(dx), pending(out.pending));
  }
  std::int64_t outer;
  std::int64_t n;
  std::int64_t inner;
  Accumulator<T> factor;
  PendingRule pending;
};

template <std::size_t N>
constexpr PlacementRule<N> total_rule(const PlacementList<N>& list) {
  return rule_for_each_axis(
      list, [](PlacementValue p) { return p.is_split() ? AxisRule{true, partial_value()} : linear_rule(p); });
}
template <std::size_t N>
constexpr PlacementRule<N> sum_rule(const PlacementList<N>& list, int d) {
  return rule_for_each_axis(list, [d](PlacementValue p) { return sum_rule(p, d); });
}

template <class T, std::size_t RY, auto RuleValue, class X>
auto reduce_dimension(const X& x, std::int64_t outer, std::int64_t n, std::int64_t inner, const Extents& global,
                      Accumulator<T> factor) {
  using Layout = typename layout_with<typename X::layout_type, RuleValue>::type;
  auto y = make_tensor<T, RY, Layout>(global, x.mesh_state());
  if constexpr (!on_host<Layout>) {
    const typename space_of<Layout>::Compute compute(x.impl()->buffer);
    compute.sum_dim(dtype_of<T>, x.device_data(), y.device_data(), outer, n, inner);
    if (factor != static_cast<Accumulator<T>>(1))
      compute.scale(dtype_of<T>, y.device_data(), real_factor(factor), y.device_data(), y.size());
  } else if constexpr (RY == 0)
    y.data()[0] = static_cast<T>(static_cast<Accumulator<T>>(kernels::sum_all(x.data(), x.size())) * factor);
  else if (y.size() > 0) {
    kernels::sum_dim(x.data(), y.data(), outer, n, inner);
    if (factor != static_cast<Accumulator<T>>(1)) kernels::scale(y.data(), factor, y.data(), y.size());
  }
  if constexpr (FieldElement<T>)
    if (wants_grad(x)) {
      auto node = make_node<SumNode<T, space_of<Layout>>>(outer, n, inner, factor);
      // A copy: clang 19 gives template arguments that are objects the alignment of bytes.
      constexpr auto placements = RuleValue.out;
      node->pending = pending_rule(X::placements, placements);
      node->inputs.push_back(x.impl()->slot);
      record(y, std::move(node));
    }
  return y;
}

template <class A>
A one_over(std::int64_t n) {
  if constexpr (is_complex<A>)
    return A(typename A::value_type(1) / static_cast<typename A::value_type>(n));
  else
    return static_cast<A>(1) / static_cast<A>(n);
}

template <bool Mean, class T, std::size_t R, class L>
auto total(const BasicTensor<T, R, L>& x) {
  using X = BasicTensor<T, R, L>;
  constexpr auto rule = total_rule(X::placements);
  static_assert(
      rule.ok,
      "shardwise::sum: [O10] the sum of a pending maximum, minimum or product is not theirs; redistribute<Replicate>(x) first");
  Accumulator<T> factor(1);
  if constexpr (Mean) factor = one_over<Accumulator<T>>(x.impl()->global.elements());
  return reduce_dimension<T, 0, rule>(x, 1, x.size(), 1, Extents(), factor);
}

template <bool Mean, int D, class T, std::size_t R, class L>
auto along(const BasicTensor<T, R, L>& x) {
  using X = BasicTensor<T, R, L>;
  constexpr int d = D < 0 ? D + static_cast<int>(R) : D;
  static_assert(d >= 0 && d < static_cast<int>(R),
                "shardwise::sum: [O11] the dimension exists in the tensor; choose one from -rank to rank - 1");
  if constexpr (d >= 0 && d < static_cast<int>(R)) {
    constexpr auto rule = sum_rule(X::placements, d);
    static_assert(
        rule.ok,
        "shardwise::sum: [O10] the sum of a pending maximum, minimum or product is not theirs; redistribute<Replicate>(x) first");
    Extents global;
    global.rank = static_cast<int>(R) - 1;
    for (int i = 0, j = 0; i < static_cast<int>(R); ++i)
      if (i != d) global[j++] = x.impl()->global[i];
    Accumulator<T> factor(1);
    if constexpr (Mean) factor = one_over<Accumulator<T>>(x.impl()->global[d]);
    const Extents& local = x.impl()->local;
    return reduce_dimension<T, R - 1, rule>(x, local.elements(0, d), local[d], local.elements(d + 1, local.rank),
                                            global, factor);
  } else {
    return x;
  }
}

}  // namespace detail

/// The sum of all elements, rank 0: of a sharded tensor a pending sum, else placed as x. PyTorch: `torch.sum`.
template <Element T, std::size_t R, class L>
auto sum(const BasicTensor<T, R, L>& x) {
  return detail::total<false>(x);
}
/// The sum over dimension D, which disappears: pending where D is sharded. PyTorch: `torch.sum(x, dim)`.
template <int D, Element T, std::size_t R, class L>
auto sum(const BasicTensor<T, R, L>& x) {
  return detail::along<false, D>(x);
}
/// The mean of all elements; of a sharded tensor a pending sum of each rank's share. PyTorch: `torch.mean`.
template <FieldElement T, std::size_t R, class L>
auto mean(const BasicTensor<T, R, L>& x) {
  return detail::total<true>(x);
}
/// The mean over dimension D, which disappears.
template <int D, FieldElement T, std::size_t R, class L>
auto mean(const BasicTensor<T, R, L>& x) {
  return detail::along<true, D>(x);
}
/// Nothing: integers have no mean.
template <int... D, Element T, std::size_t R, class L>
  requires(!FieldElement<T>)
auto mean(const BasicTensor<T, R, L>& x) {
  static_assert(FieldElement<T>,
                "shardwise::mean: [O29] integers have no mean of their own type; cast<float>(x) first");
  return x;
}

/// Nothing: a dimension is known to the compiler.
template <Element T, std::size_t R, class L, std::integral... I>
  requires(sizeof...(I) > 0)
auto sum(const BasicTensor<T, R, L>& x, I...) {
  static_assert(detail::dimensions_are_template_arguments<I...>,
                "shardwise::sum: [O30] the dimension stands in angle brackets: sum<0>(x)");
  return x;
}
template <Element T, std::size_t R, class L, std::integral... I>
  requires(sizeof...(I) > 0)
auto mean(const BasicTensor<T, R, L>& x, I...) {
  static_assert(detail::dimensions_are_template_arguments<I...>,
                "shardwise::mean: [O30] the dimension stands in angle brackets: mean<0>(x)");
  return x;
}

}  // namespace shardwise
