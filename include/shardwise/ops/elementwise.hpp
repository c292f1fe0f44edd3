// Elementwise operators: arithmetic with scalars and broadcasting, activations, exp and friends; each with its
// placement rule and its gradient. Never communicates. Layer: ops.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <shardwise/ops/kernels/binary.hpp>
#include <shardwise/ops/kernels/unary.hpp>
#include <shardwise/ops/rules.hpp>

namespace shardwise {

namespace detail {

// Keeps x or y, whichever the derivative reads. The function is the compiler's to know: a program has the loops of those that it
// calls.
template <kernels::Unary F, class T, class Space>
struct UnaryNode final : Node {
  UnaryNode(const Buffer& read, std::int64_t n) : Node("unary"), kept(read), count(n) {}
  void backward(GradSlot& out) override {
    Buffer dx = Space::allocated(static_cast<std::size_t>(count) * sizeof(T));
    if constexpr (is_host<Space>)
      kernels::unary_backward<F>(kept.as<const T>(), out.grad.as<const T>(), dx.as<T>(), count);
    else
      typename Space::Compute(kept, out.grad)
          .unary_backward(dtype_of<T>, F, kept.data(), out.grad.data(), dx.data(), count);
    accumulate(*inputs[0], std::move(dx), out.pending);
  }
  Buffer kept;
  std::int64_t count;
};

template <kernels::Unary F, class T, std::size_t R, class L>
BasicTensor<T, R, L> unary(const BasicTensor<T, R, L>& x) {
  auto y = make_tensor<T, R, L>(x.impl()->global, x.mesh_state());
  inherit_origin(y, x);
  if constexpr (on_host<L>)
    kernels::unary<F>(x.data(), y.data(), y.size());
  else
    typename space_of<L>::Compute(x.impl()->buffer).unary(dtype_of<T>, F, x.device_data(), y.device_data(), y.size());
  if constexpr (FieldElement<T>)
    if (wants_grad(x)) {
      const Buffer& read = kernels::unary_backward_reads_output(F) ? y.impl()->buffer : x.impl()->buffer;
      auto node = make_node<UnaryNode<F, T, space_of<L>>>(F == kernels::Unary::neg ? Buffer() : read, y.size());
      node->inputs.push_back(x.impl()->slot);
      record(y, std::move(node));
    }
  return y;
}

template <class L>
inline constexpr bool holds_values = rule_for_each_axis(layout_traits<L>::placements, value_rule).ok;
template <class L>
inline constexpr bool holds_linear_terms = rule_for_each_axis(layout_traits<L>::placements, linear_rule).ok;

template <class T, class Space>
struct BinaryNode final : Node {
  BinaryNode(kernels::Binary o, Buffer left, Buffer right, const Extents& left_shape, const Extents& right_shape,
             const Extents& result_shape, PendingRule left_pending, PendingRule right_pending)
      : Node("arithmetic"), op(o), a(std::move(left)), b(std::move(right)), sa(left_shape), sb(right_shape),
        so(result_shape), pa(left_pending), pb(right_pending) {}

  void backward(GradSlot& out) override {
    const bool additive = op == kernels::Binary::add || op == kernels::Binary::sub;
    GradSlot* left = inputs[0].get();
    GradSlot* right = inputs[1].get();
    // Where the gradient passes as it is, it is shared and copied by whoever writes first.
    const bool left_shares = left != nullptr && additive && sa == so;
    const bool right_shares = right != nullptr && op == kernels::Binary::add && sb == so;
    Buffer da = left_shares || left == nullptr ? Buffer() : buffer_for(sa);
    Buffer db = right_shares || right == nullptr ? Buffer() : buffer_for(sb);
    if (da || db) {
      if constexpr (is_host<Space>)
        kernels::binary_backward(op, sa, a.as<const T>(), sb, b.as<const T>(), so, out.grad.as<const T>(), da.as<T>(),
                                 db.as<T>());
      else
        typename Space::Compute(a, b, out.grad)
            .binary_backward(dtype_of<T>, op, sa, a.data(), sb, b.data(), so, out.grad.data(), da.data(), db.data());
    }
    if (left != nullptr) accumulate(*left, left_shares ? out.grad : std::move(da), pa(out.pending));
    if (right != nullptr) accumulate(*right, right_shares ? out.grad : std::move(db), pb(out.pending));
  }

  static Buffer buffer_for(const Extents& shape) {
    return Space::allocated(static_cast<std::size_t>(shape.elements()) * sizeof(T));
  }

  kernels::Binary op;
  Buffer a;
  Buffer b;
  Extents sa;
  Extents sb;
  Extents so;
  PendingRule pa;
  PendingRule pb;
};

// Sizes of a op b, trailing dimensions aligned, size 1 repeated. A sharded dimension is never repeated.
template <std::size_t N>
Extents broadcast_shape(const char* function, const Extents& a, const Extents& b, const PlacementList<N>& out) {
  Extents shape = a.rank >= b.rank ? a : b;
  for (int i = 1; i <= shape.rank; ++i) {
    const std::int64_t na = i <= a.rank ? a[a.rank - i] : 1;
    const std::int64_t nb = i <= b.rank ? b[b.rank - i] : 1;
    bool sharded = false;
    for (const PlacementValue& p : out) sharded = sharded || p.is_split(shape.rank - i);
    const bool both = i <= a.rank && i <= b.rank;
    SHARDWISE_REQUIRE(na == nb || ((na == 1 || nb == 1) && !(sharded && both)),
                      text(function, ": shapes ", a, " and ", b,
                           " do not fit: trailing dimensions are equal, or 1 where the dimension is not sharded"),
                      ShapeError);
    shape[shape.rank - i] = na == 1 ? nb : na;
  }
  return shape;
}

template <class A, class B, Arithmetic Kind>
constexpr auto arithmetic_of() {
  constexpr int rank = static_cast<int>(A::rank > B::rank ? A::rank : B::rank);
  if constexpr (same_home<A, B>)
    return rule_for_each_axis(A::placements, B::placements, [](PlacementValue p, PlacementValue q) {
      return arithmetic_rule(Kind, p, q, rank - static_cast<int>(A::rank), rank - static_cast<int>(B::rank));
    });
  else
    return PlacementRule<A::placements.size()>{true, A::placements};
}

template <class T, Arithmetic Kind>
inline constexpr bool divides = Kind != Arithmetic::divide || FieldElement<T>;

template <Arithmetic Kind, class T, std::size_t RA, class LA, class TB, std::size_t RB, class LB>
auto binary(kernels::Binary op, const BasicTensor<T, RA, LA>& a, const BasicTensor<TB, RB, LB>& b) {
  using A = BasicTensor<T, RA, LA>;
  using B = BasicTensor<TB, RB, LB>;
  static_assert(std::is_same_v<T, TB>, "shardwise::arithmetic: [O20] both operands have one element type");
  static_assert(divides<T, Kind>,
                "shardwise::arithmetic: [O22] integers do not divide; use a floating point element type");
  SHARDWISE_SAME_HOME("arithmetic", A, B);
  constexpr auto rule = arithmetic_of<A, B, Kind>();
  static_assert(
      rule.ok,
      "shardwise::arithmetic: [O2] the placements of the operands do not fit; redistribute one of them (a replicated "
      "operand of a pending sum: redistribute<Partial<>>(x), of a shard: redistribute<Shard<d>>(x); both are local)");
  using Layout = typename layout_with<LA, rule>::type;
  constexpr std::size_t R = RA > RB ? RA : RB;
  using Y = BasicTensor<T, R, Layout>;
  if constexpr (std::is_same_v<T, TB> && divides<T, Kind> && same_home<A, B> && rule.ok) {
    require_same_mesh("shardwise::arithmetic", a, b);
    const Extents global = broadcast_shape("shardwise::arithmetic", a.impl()->global, b.impl()->global, rule.out);
    Y y = make_tensor<T, R, Layout>(global, a.mesh_state());
    inherit_origin(y, a);
    inherit_origin(y, b);
    if constexpr (on_host<LA>)
      kernels::binary(op, a.impl()->local, a.data(), b.impl()->local, b.data(), y.impl()->local, y.data());
    else
      typename space_of<LA>::Compute(a.impl()->buffer, b.impl()->buffer)
          .binary(dtype_of<T>, op, a.impl()->local, a.device_data(), b.impl()->local, b.device_data(), y.impl()->local,
                  y.device_data());
    if constexpr (FieldElement<T>)
      if (wants_grad(a) || wants_grad(b)) {
        auto node = make_node<BinaryNode<T, space_of<LA>>>(
            op, a.impl()->buffer, b.impl()->buffer, a.impl()->local, b.impl()->local, y.impl()->local,
            pending_rule(A::placements, rule.out), pending_rule(B::placements, rule.out));
        node->inputs = {a.impl()->slot, b.impl()->slot};
        record(y, std::move(node));
      }
    return y;
  } else {
    return Y();
  }
}

// y = factor * x + constant, with the derivative `factor`; or s / x.
template <class T, class Space>
struct ScaleNode final : Node {
  ScaleNode(T f, std::int64_t n) : Node("scale"), factor(f), count(n) {}
  void backward(GradSlot& out) override {
    if (factor == static_cast<T>(1.0f)) {
      accumulate(*inputs[0], std::move(out.grad), out.pending);
      return;
    }
    Buffer dx = Space::allocated(static_cast<std::size_t>(count) * sizeof(T));
    const T by = kernels::conjugate(factor);
    if constexpr (is_host<Space>)
      kernels::binary_scalar(kernels::Binary::mul, out.grad.as<const T>(), by, dx.as<T>(), count);
    else
      typename Space::Compute(out.grad).binary_scalar(dtype_of<T>, kernels::Binary::mul, out.grad.data(), &by,
                                                      dx.data(), count);
    accumulate(*inputs[0], std::move(dx), out.pending);
  }
  T factor;
  std::int64_t count;
};

template <class X, class Y>
void apply_scalar(kernels::Binary op, const X& x, typename X::value_type s, Y& y) {
  if constexpr (on_host<typename X::layout_type>)
    kernels::binary_scalar(op, x.data(), s, y.data(), y.size());
  else
    typename space_of<typename X::layout_type>::Compute(x.impl()->buffer)
        .binary_scalar(dtype_of<typename X::value_type>, op, x.device_data(), &s, y.device_data(), y.size());
}

template <class T, std::size_t R, class L>
BasicTensor<T, R, L> with_scalar(kernels::Binary op, const BasicTensor<T, R, L>& x, T s, T derivative) {
  auto y = make_tensor<T, R, L>(x.impl()->global, x.mesh_state());
  inherit_origin(y, x);
  apply_scalar(op, x, s, y);
  if constexpr (FieldElement<T>)
    if (wants_grad(x)) {
      auto node = make_node<ScaleNode<T, space_of<L>>>(derivative, y.size());
      node->inputs.push_back(x.impl()->slot);
      record(y, std::move(node));
    }
  return y;
}

template <class S, class T>
inline constexpr bool is_scalar_for = std::is_arithmetic_v<S> || std::is_same_v<S, T>;

template <class T, class S>
T scalar_as(S s) {
  static_assert(!std::is_integral_v<T> || !std::is_floating_point_v<S>,
                "shardwise::arithmetic: [O23] a fraction has no meaning for integer elements; write an integer");
  if constexpr (std::is_same_v<S, T> || std::is_integral_v<T>)
    return static_cast<T>(s);
  else if constexpr (is_complex<T>)
    return T(static_cast<typename T::value_type>(s));
  else
    return static_cast<T>(static_cast<Accumulator<T>>(s));
}

}  // namespace detail

/// a + b, elementwise with trailing dimensions aligned. Placements per axis: equal (two pending sums too), or a shard of a
/// dimension that the other operand does not have. PyTorch: `torch.add`.
template <Element TA, std::size_t RA, class LA, Element TB, std::size_t RB, class LB>
auto operator+(const BasicTensor<TA, RA, LA>& a, const BasicTensor<TB, RB, LB>& b) {
  return detail::binary<detail::Arithmetic::add>(detail::kernels::Binary::add, a, b);
}
template <Element TA, std::size_t RA, class LA, Element TB, std::size_t RB, class LB>
auto operator-(const BasicTensor<TA, RA, LA>& a, const BasicTensor<TB, RB, LB>& b) {
  return detail::binary<detail::Arithmetic::add>(detail::kernels::Binary::sub, a, b);
}
/// a * b; one operand may be a pending sum and the other replicated: the result is pending.
template <Element TA, std::size_t RA, class LA, Element TB, std::size_t RB, class LB>
auto operator*(const BasicTensor<TA, RA, LA>& a, const BasicTensor<TB, RB, LB>& b) {
  return detail::binary<detail::Arithmetic::multiply>(detail::kernels::Binary::mul, a, b);
}
/// a / b; a may be a pending sum where b is replicated.
template <Element TA, std::size_t RA, class LA, Element TB, std::size_t RB, class LB>
auto operator/(const BasicTensor<TA, RA, LA>& a, const BasicTensor<TB, RB, LB>& b) {
  return detail::binary<detail::Arithmetic::divide>(detail::kernels::Binary::div, a, b);
}

/// Arithmetic with a scalar. A pending sum may be scaled; adding to one would add once a rank.
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
BasicTensor<T, R, L> operator+(const BasicTensor<T, R, L>& x, S s) {
  static_assert(
      detail::holds_values<L>,
      "shardwise::arithmetic: [O3] a scalar added to a pending reduction would count once a rank; redistribute<Replicate>(x) first");
  return detail::with_scalar(detail::kernels::Binary::add, x, detail::scalar_as<T>(s), static_cast<T>(1));
}
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
BasicTensor<T, R, L> operator+(S s, const BasicTensor<T, R, L>& x) {
  return x + s;
}
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
BasicTensor<T, R, L> operator-(const BasicTensor<T, R, L>& x, S s) {
  static_assert(
      detail::holds_values<L>,
      "shardwise::arithmetic: [O3] a scalar added to a pending reduction would count once a rank; redistribute<Replicate>(x) first");
  return detail::with_scalar(detail::kernels::Binary::sub, x, detail::scalar_as<T>(s), static_cast<T>(1));
}
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
BasicTensor<T, R, L> operator*(const BasicTensor<T, R, L>& x, S s) {
  static_assert(
      detail::holds_linear_terms<L>,
      "shardwise::arithmetic: [O4] only a pending sum or average can be scaled; redistribute<Replicate>(x) first");
  return detail::with_scalar(detail::kernels::Binary::mul, x, detail::scalar_as<T>(s), detail::scalar_as<T>(s));
}
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
BasicTensor<T, R, L> operator*(S s, const BasicTensor<T, R, L>& x) {
  return x * s;
}
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
BasicTensor<T, R, L> operator/(const BasicTensor<T, R, L>& x, S s) {
  static_assert(FieldElement<T>,
                "shardwise::arithmetic: [O22] integers do not divide; use a floating point element type");
  static_assert(
      detail::holds_linear_terms<L>,
      "shardwise::arithmetic: [O4] only a pending sum or average can be scaled; redistribute<Replicate>(x) first");
  const T d = detail::scalar_as<T>(s);
  return detail::with_scalar(detail::kernels::Binary::div, x, d, static_cast<T>(static_cast<T>(1) / d));
}
/// -x, also of a pending sum; of a pending maximum the pending minimum, and the other way round.
template <Element T, std::size_t R, class L>
auto operator-(const BasicTensor<T, R, L>& x) {
  constexpr auto rule = detail::rule_for_each_axis(detail::layout_traits<L>::placements, detail::negation_rule);
  static_assert(rule.ok,
                "shardwise::arithmetic: [O4] a pending product cannot be negated; redistribute<Replicate>(x) first");
  using Layout = typename detail::layout_with<L, rule>::type;
  if constexpr (std::is_same_v<Layout, L> || !rule.ok) {
    return detail::with_scalar(detail::kernels::Binary::mul, x, static_cast<T>(-1), static_cast<T>(-1));
  } else {
    SHARDWISE_REQUIRE(!detail::wants_grad(x),
                      "shardwise::arithmetic: a pending maximum or minimum has no gradient; detach(x) or use NoGrad");
    auto y = detail::make_tensor<T, R, Layout>(x.impl()->global, x.mesh_state());
    detail::apply_scalar(detail::kernels::Binary::mul, x, static_cast<T>(-1), y);
    return y;
  }
}
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
auto operator-(S s, const BasicTensor<T, R, L>& x) {
  return -x + s;
}
/// s / x.
template <Element T, std::size_t R, class L, class S>
  requires(detail::is_scalar_for<S, T>)
auto operator/(S s, const BasicTensor<T, R, L>& x) {
  static_assert(FieldElement<T>,
                "shardwise::arithmetic: [O22] integers do not divide; use a floating point element type");
  static_assert(detail::holds_values<L>,
                "shardwise::arithmetic: [O2] a pending reduction cannot divide; redistribute<Replicate>(x) first");
  auto numerator = detail::make_tensor<T, R, L>(x.impl()->global, x.mesh_state());
  detail::set_elements(numerator, detail::scalar_as<T>(s));
  return numerator / x;
}

// Each function of one tensor: the same sentence of placements, one kernel.
#define SHARDWISE_UNARY(name, kernel)                                                                          \
  template <Element T, std::size_t R, class L>                                                                 \
  BasicTensor<T, R, L> name(const BasicTensor<T, R, L>& x) {                                                   \
    static_assert(RealElement<T>, "shardwise::" #name ": [O21] " #name                                         \
                                  " is defined for real floating point: float, double, bfloat16, half");       \
    static_assert(detail::holds_values<L>,                                                                     \
                  "shardwise::" #name ": [O5] " #name " of a pending reduction is not the reduction of " #name \
                  "; redistribute<Replicate>(x) or redistribute<Shard<d>>(x) first");                          \
    if constexpr (RealElement<T> && detail::holds_values<L>)                                                   \
      return detail::unary<detail::kernels::Unary::kernel>(x);                                                 \
    else                                                                                                       \
      return x;                                                                                                \
  }

/// max(x, 0). Values, not pending reductions; the placement stays. PyTorch: `torch.relu`.
SHARDWISE_UNARY(relu, relu)
/// x * sigmoid(x). PyTorch: `torch.nn.functional.silu`.
SHARDWISE_UNARY(silu, silu)
/// 1 / (1 + exp(-x)).
SHARDWISE_UNARY(sigmoid, sigmoid)
SHARDWISE_UNARY(tanh, tanh)
SHARDWISE_UNARY(exp, exp)
SHARDWISE_UNARY(log, log)
SHARDWISE_UNARY(sqrt, sqrt)

namespace detail {
SHARDWISE_UNARY(gelu_exact, gelu)
SHARDWISE_UNARY(gelu_by_tanh, gelu_tanh)
}  // namespace detail
#undef SHARDWISE_UNARY

/// How gelu is computed. PyTorch: `approximate="none"` or `"tanh"`.
enum class Approximate { none, tanh };
struct GeluOptions {
  Approximate approximate = Approximate::none;
};

/// x/2 (1 + erf(x / sqrt 2)), or its tanh approximation. PyTorch: `torch.nn.functional.gelu`.
template <Element T, std::size_t R, class L>
BasicTensor<T, R, L> gelu(const BasicTensor<T, R, L>& x, const GeluOptions& options = {}) {
  return options.approximate == Approximate::tanh ? detail::gelu_by_tanh(x) : detail::gelu_exact(x);
}

}  // namespace shardwise
