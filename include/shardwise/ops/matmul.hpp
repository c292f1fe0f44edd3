// Matrix products: matmul, and linear with the weight as PyTorch stores it and the bias fused; with their
// placement rules and gradients. Layer: ops.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <shardwise/ops/kernels/gemm.hpp>
#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/rules.hpp>

namespace shardwise {

namespace detail {

// y(rows, n) = a(rows, k) B, where B is b(k, n), or b(n, k) transposed; y += bias(n) where `bias_here`.
template <class T>
struct ProductNode final : Node {
  ProductNode(const char* operator_name, Buffer left, Buffer right, std::int64_t r, std::int64_t c, std::int64_t i,
              bool t)
      : Node(operator_name), a(std::move(left)), b(std::move(right)), rows(r), n(c), k(i), transposed(t) {}

  // Complex gradients are conjugates of derivatives, as in PyTorch.
  static Buffer conjugated(const Buffer& x, std::int64_t count) {
    if constexpr (is_complex<T>) {
      Buffer y(static_cast<std::size_t>(count) * sizeof(T));
      for (std::int64_t i = 0; i < count; ++i) y.as<T>()[i] = T(x.as<const T>()[i].real(), -x.as<const T>()[i].imag());
      return y;
    } else {
      return x;
    }
  }

  void backward(GradSlot& out) override {
    const T* g = out.grad.as<const T>();
    if (inputs[0] != nullptr && is_complex<T>) b = conjugated(b, n * k);
    if (inputs[1] != nullptr && is_complex<T>) a = conjugated(a, rows * k);
    if (inputs[0] != nullptr) {  // da = g B^T
      Buffer da(static_cast<std::size_t>(rows * k) * sizeof(T));
      kernels::gemm(false, !transposed, rows, k, n, g, b.as<const T>(), da.as<T>(), false);
      accumulate(*inputs[0], std::move(da), pa(out.pending));
    }
    if (inputs[1] != nullptr) {  // db = a^T g, or its transpose
      Buffer db(static_cast<std::size_t>(n * k) * sizeof(T));
      if (transposed)
        kernels::gemm(true, false, n, k, rows, g, a.as<const T>(), db.as<T>(), false);
      else
        kernels::gemm(true, false, k, n, rows, a.as<const T>(), g, db.as<T>(), false);
      accumulate(*inputs[1], std::move(db), pb(out.pending));
    }
    if (inputs.size() > 2 && inputs[2] != nullptr) {
      Buffer dbias(static_cast<std::size_t>(n) * sizeof(T));
      kernels::sum_dim(g, dbias.as<T>(), 1, rows, n);
      accumulate(*inputs[2], std::move(dbias), pbias(out.pending));
    }
  }

  Buffer a;
  Buffer b;
  std::int64_t rows;
  std::int64_t n;
  std::int64_t k;
  bool transposed;
  PendingRule pa;
  PendingRule pb;
  PendingRule pbias;
};

template <class A, class B, bool Transposed>
constexpr auto matmul_of() {
  if constexpr (same_home<A, B>)
    return rule_for_each_axis(A::placements, B::placements, [](PlacementValue p, PlacementValue q) {
      return matmul_rule(p, q, static_cast<int>(A::rank), Transposed);
    });
  else
    return PlacementRule<A::placements.size()>{true, A::placements};
}

// The bias of a product lies as the columns of its result; of a pending sum it is replicated and added by the first
// rank alone, so that it counts once (of a pending average by all).
constexpr bool bias_counts_once(PlacementValue out) { return out.is_partial() && out.op == ReduceOp::sum; }
constexpr bool bias_fits(PlacementValue bias, PlacementValue out, int rank) {
  if (out.is_shard(rank - 1)) return bias.is_shard(0);
  return bias.is_replicate();
}
template <std::size_t N>
constexpr bool bias_fits(const PlacementList<N>& bias, const PlacementList<N>& out, int rank) {
  for (std::size_t i = 0; i < N; ++i)
    if (!bias_fits(bias[i], out[i], rank)) return false;
  return true;
}
template <std::size_t N>
constexpr PendingRule bias_pending(const PlacementList<N>& bias, const PlacementList<N>& out) {
  PendingRule rule = pending_rule(bias, out);
  for (std::size_t i = 0; i < N; ++i)
    if (bias_counts_once(out[i])) {  // its value is in one term, its gradient whole on every rank
      rule.always &= ~(1u << i);
      rule.whole &= ~(1u << i);
      rule.passed |= 1u << i;
    }
  return rule;
}

struct NoBias {};

template <bool Transposed, class Y, class A, class B, class Bias>
Y product(const char* name, const A& a, const B& b, [[maybe_unused]] const Bias& bias, const Extents& global) {
  using T = typename A::value_type;
  constexpr auto rule = matmul_of<A, B, Transposed>();
  Y y = make_tensor<T, A::rank, typename Y::layout_type>(global, a.mesh_state());
  const Extents& shape = a.impl()->local;
  const std::int64_t k = shape[shape.rank - 1];
  const std::int64_t rows = shape.elements(0, shape.rank - 1);
  const std::int64_t n = b.impl()->local[Transposed ? 0 : 1];
  constexpr bool may_have_bias = !std::is_same_v<Bias, NoBias>;
  bool with_bias = false;
  if constexpr (may_have_bias) with_bias = bias.defined();
  bool bias_here = with_bias;
  if constexpr (A::distributed) {
    for (std::size_t i = 0; i < rule.out.size(); ++i)
      if (bias_counts_once(rule.out[i]) && a.mesh().grid().coordinate[i] != 0) bias_here = false;
    if (!a.mesh().is_member()) return y;
  }
  if constexpr (may_have_bias)
    for (std::int64_t r = 0; bias_here && r < rows; ++r)
      std::memcpy(y.data() + r * n, bias.data(), static_cast<std::size_t>(n) * sizeof(T));
  kernels::gemm(false, Transposed, rows, n, k, a.data(), b.data(), y.data(), bias_here);
  if constexpr (FieldElement<T>) {
    bool wanted = wants_grad(a) || wants_grad(b);
    if constexpr (may_have_bias) wanted = wanted || (with_bias && wants_grad(bias));
    if (wanted) {
      auto node = std::make_shared<ProductNode<T>>(name, a.impl()->buffer, b.impl()->buffer, rows, n, k, Transposed);
      node->pa = pending_rule(A::placements, rule.out);
      node->pb = pending_rule(B::placements, rule.out);
      node->inputs.push_back(a.impl()->slot);
      node->inputs.push_back(b.impl()->slot);
      if constexpr (may_have_bias)
        if (with_bias) {
          node->pbias = bias_pending(Bias::placements, rule.out);
          node->inputs.push_back(bias.impl()->slot);
        }
      record(y, std::move(node));
    }
  }
  return y;
}

template <class A, class B, bool Transposed>
using ProductResult = BasicTensor<typename A::value_type, A::rank,
                                  typename layout_with<typename A::layout_type, matmul_of<A, B, Transposed>()>::type>;

}  // namespace detail

/// a (..., m, k) times b (k, n): (..., m, n). PyTorch: `torch.matmul`.
///
/// Placements per axis: rows of a sharded and b replicated; a replicated and columns of b sharded; both sharded along k, which
/// gives a pending sum; one of them pending and the other replicated. Throws `ShapeError` where the inner sizes differ.
template <Element T, std::size_t RA, class LA, class LB>
  requires(RA >= 2)
auto matmul(const BasicTensor<T, RA, LA>& a, const BasicTensor<T, 2, LB>& b) {
  using A = BasicTensor<T, RA, LA>;
  using B = BasicTensor<T, 2, LB>;
  SHARDWISE_SAME_HOME("matmul", A, B);
  constexpr auto rule = detail::matmul_of<A, B, false>();
  static_assert(
      rule.ok,
      "shardwise::matmul: [O6] the placements do not fit: shard rows of the left, or columns of the right operand, or both along "
      "the inner dimension; redistribute one of them");
  using Y = detail::ProductResult<A, B, false>;
  if constexpr (detail::same_home<A, B> && rule.ok) {
    detail::require_same_mesh("shardwise::matmul", a, b);
    detail::Extents global = a.impl()->global;
    SHARDWISE_REQUIRE(global[RA - 1] == b.impl()->global[0],
                      "shardwise::matmul: shapes " + to_string(a.shape()) + " and " + to_string(b.shape()) +
                          " differ in the inner dimension",
                      ShapeError);
    global[RA - 1] = b.impl()->global[1];
    return detail::product<false, Y>("matmul", a, b, detail::NoBias(), global);
  } else {
    return Y();
  }
}

template <Element TA, std::size_t RA, class LA, Element TB, std::size_t RB, class LB>
  requires(RA < 2 || RB != 2 || !std::is_same_v<TA, TB>)
BasicTensor<TA, RA, LA> matmul(const BasicTensor<TA, RA, LA>& a, const BasicTensor<TB, RB, LB>&) {
  static_assert(
      RA >= 2 && RB == 2,
      "shardwise::matmul: [O19] the left operand has 2 or more dimensions and the right one 2; reshape(x, shape)");
  static_assert(RA < 2 || RB != 2 || std::is_same_v<TA, TB>,
                "shardwise::matmul: [O20] both operands have one element type");
  return a;
}

/// x (..., in) times weight (out, in) transposed, plus bias (out): (..., out). An undefined bias is none.
///
/// Placements per axis, as (x, weight, bias) -> y: (R, S0, S0) -> S(-1); (S(-1), S1, R) -> a pending sum, to which the first rank
/// alone adds the bias; (S(d), R, R) -> S(d); (R, R, R) -> R. Throws `ShapeError` where the sizes do not fit.
/// PyTorch: `torch.nn.functional.linear`.
template <Element T, std::size_t R, class LX, class LW, class LB>
auto linear(const BasicTensor<T, R, LX>& x, const BasicTensor<T, 2, LW>& weight, const BasicTensor<T, 1, LB>& bias) {
  using X = BasicTensor<T, R, LX>;
  using W = BasicTensor<T, 2, LW>;
  using B = BasicTensor<T, 1, LB>;
  static_assert(R >= 1, "shardwise::linear: [O7] the input has at least one dimension");
  SHARDWISE_SAME_HOME("linear", X, W);
  SHARDWISE_SAME_HOME("linear", X, B);
  constexpr auto rule = detail::matmul_of<X, W, true>();
  static_assert(
      rule.ok,
      "shardwise::linear: [O8] the placements of input and weight do not fit: a weight Shard<0> takes a replicated input, a weight "
      "Shard<1> an input sharded along its last dimension; redistribute the input");
  using Y = detail::ProductResult<X, W, true>;
  if constexpr (detail::same_home<X, W> && detail::same_home<X, B> && rule.ok) {
    constexpr bool fits = detail::bias_fits(B::placements, rule.out, static_cast<int>(R));
    static_assert(
        fits, "shardwise::linear: [O9] the bias lies as the output features do: Shard<0> where the weight is Shard<0>, "
              "else Replicate");
    if constexpr (fits) {
      detail::require_same_mesh("shardwise::linear", x, weight);
      detail::Extents global = x.impl()->global;
      SHARDWISE_REQUIRE(global[R - 1] == weight.impl()->global[1],
                        "shardwise::linear: an input of shape " + to_string(x.shape()) +
                            " does not fit a weight of shape " + to_string(weight.shape()) +
                            ": its last size is the number of input features",
                        ShapeError);
      global[R - 1] = weight.impl()->global[0];
      SHARDWISE_REQUIRE(!bias.defined() || bias.impl()->global[0] == global[R - 1],
                        "shardwise::linear: a bias of shape " + to_string(bias.defined() ? bias.shape() : Shape<1>{0}) +
                            " for " + std::to_string(global[R - 1]) + " output features",
                        ShapeError);
      return detail::product<true, Y>("linear", x, weight, bias, global);
    } else {
      return Y();
    }
  } else {
    return Y();
  }
}

/// Without a bias.
template <Element T, std::size_t R, class LX, class LW>
auto linear(const BasicTensor<T, R, LX>& x, const BasicTensor<T, 2, LW>& weight) {
  using X = BasicTensor<T, R, LX>;
  using W = BasicTensor<T, 2, LW>;
  SHARDWISE_SAME_HOME("linear", X, W);
  constexpr auto rule = detail::matmul_of<X, W, true>();
  static_assert(
      rule.ok,
      "shardwise::linear: [O8] the placements of input and weight do not fit: a weight Shard<0> takes a replicated input, a weight "
      "Shard<1> an input sharded along its last dimension; redistribute the input");
  using Y = detail::ProductResult<X, W, true>;
  if constexpr (detail::same_home<X, W> && rule.ok) {
    detail::require_same_mesh("shardwise::linear", x, weight);
    detail::Extents global = x.impl()->global;
    SHARDWISE_REQUIRE(global[R - 1] == weight.impl()->global[1],
                      "shardwise::linear: an input of shape " + to_string(x.shape()) +
                          " does not fit a weight of shape " + to_string(weight.shape()) +
                          ": its last size is the number of input features",
                      ShapeError);
    global[R - 1] = weight.impl()->global[0];
    return detail::product<true, Y>("linear", x, weight, detail::NoBias(), global);
  } else {
    return Y();
  }
}

}  // namespace shardwise
