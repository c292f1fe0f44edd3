// Matrix products: matmul of matrices and of stacks of them, and linear with the weight as PyTorch stores it and the bias
// fused; with their placement rules and gradients. Layer: ops.
#pragma once

#include <string>
#include <utility>

#include <shardwise/ops/kernels/gemm.hpp>
#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/rules.hpp>

namespace shardwise {

namespace detail {

// `batch` products y(rows, n) = a(rows, k) B, where B is b(k, n), or b(n, k) transposed; one with a bias(n) added.
struct ProductShape {
  std::int64_t batch;
  std::int64_t rows;
  std::int64_t n;
  std::int64_t k;
};

// op(A) op(B) for each of a batch, one behind the other: kernels::gemm where the host computes.
template <class T, class Space>
void multiply_batch(bool trans_a, bool trans_b, std::int64_t batch, std::int64_t m, std::int64_t n, std::int64_t k,
                    const Buffer& a, const Buffer& b, const Buffer& c, bool accumulate) {
  if constexpr (is_host<Space>)
    for (std::int64_t i = 0; i < batch; ++i)
      kernels::gemm(trans_a, trans_b, m, n, k, a.as<const T>() + i * m * k, b.as<const T>() + i * k * n,
                    c.as<T>() + i * m * n, accumulate);
  else
    typename Space::Compute(a, b).gemm(dtype_of<T>, trans_a, trans_b, batch, m, n, k, a.data(), b.data(), c.data(),
                                       accumulate);
}

template <class T, class Space>
struct ProductNode final : Node {
  ProductNode(const char* operator_name, Buffer left, Buffer right, const ProductShape& sizes, bool t)
      : Node(operator_name), a(std::move(left)), b(std::move(right)), shape(sizes), transposed(t) {}

  // Complex gradients are conjugates of derivatives, as in PyTorch.
  static Buffer conjugated(const Buffer& x, std::int64_t count) {
    if constexpr (is_complex<T>) {
      Buffer y = Space::allocated(static_cast<std::size_t>(count) * sizeof(T));
      if constexpr (is_host<Space>)
        for (std::int64_t i = 0; i < count; ++i)
          y.as<T>()[i] = T(x.as<const T>()[i].real(), -x.as<const T>()[i].imag());
      else
        typename Space::Compute(x).conjugate(dtype_of<T>, x.data(), y.data(), count);
      return y;
    } else {
      return x;
    }
  }

  void backward(GradSlot& out) override {
    const auto [batch, rows, n, k] = shape;
    const Buffer& g = out.grad;
    if (inputs[0] != nullptr && is_complex<T>) b = conjugated(b, batch * n * k);
    if (inputs[1] != nullptr && is_complex<T>) a = conjugated(a, batch * rows * k);
    if (inputs[0] != nullptr) {  // da = g B^T
      Buffer da = Space::allocated(static_cast<std::size_t>(batch * rows * k) * sizeof(T));
      multiply_batch<T, Space>(false, !transposed, batch, rows, k, n, g, b, da, false);
      accumulate(*inputs[0], std::move(da), pa(out.pending));
    }
    if (inputs[1] != nullptr) {  // db = a^T g, or its transpose
      Buffer db = Space::allocated(static_cast<std::size_t>(batch * n * k) * sizeof(T));
      if (transposed)
        multiply_batch<T, Space>(true, false, batch, n, k, rows, g, a, db, false);
      else
        multiply_batch<T, Space>(true, false, batch, k, n, rows, a, g, db, false);
      accumulate(*inputs[1], std::move(db), pb(out.pending));
    }
    if (inputs.size() > 2 && inputs[2] != nullptr) {
      Buffer dbias = Space::allocated(static_cast<std::size_t>(n) * sizeof(T));
      if constexpr (is_host<Space>)
        kernels::sum_dim(g.as<const T>(), dbias.as<T>(), 1, rows, n);
      else
        typename Space::Compute(g).sum_dim(dtype_of<T>, g.data(), dbias.data(), 1, rows, n);
      accumulate(*inputs[2], std::move(dbias), pbias(out.pending));
    }
  }

  Buffer a;
  Buffer b;
  ProductShape shape;
  bool transposed;
  PendingRule pa;
  PendingRule pb;
  PendingRule pbias;
};

template <class A, class B, bool Transposed>
constexpr auto matmul_of() {
  if constexpr (same_home<A, B>)
    return rule_for_each_axis(A::placements, B::placements, [](PlacementValue p, PlacementValue q) {
      if constexpr (B::rank > 2)
        return batched_matmul_rule(p, q, static_cast<int>(A::rank));
      else
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

struct NoBias {
  static constexpr PlacementList<0> placements{};
};
template <class X, class Bias>
inline constexpr bool bias_shares_home = same_home<X, Bias>;
template <class X>
inline constexpr bool bias_shares_home<X, NoBias> = true;
template <class Bias, std::size_t N>
constexpr bool bias_fits_rule(const PlacementList<N>& out, int rank) {
  if constexpr (Bias::placements.size() != N)
    return true;  // none, or not at home
  else
    return bias_fits(Bias::placements, out, rank);
}

// y = a b, or a b^T, for each of a batch; plus `bias` in each row, where it is not null. Whatever the placements are, compiled once.
template <class T, class Space>
[[gnu::noinline]] void multiply(const ProductShape& shape, bool transposed, const Buffer& a, const Buffer& b,
                                const Buffer& y, const Buffer* bias) {
  const auto [batch, rows, n, k] = shape;
  if (bias != nullptr) {
    if constexpr (is_host<Space>)
      for (std::int64_t r = 0; r < rows; ++r)
        std::memcpy(y.as<T>() + r * n, bias->as<const T>(), static_cast<std::size_t>(n) * sizeof(T));
    else
      return typename Space::Compute(a, b, *bias)
          .gemm_bias(dtype_of<T>, transposed, rows, n, k, a.data(), b.data(), bias->data(), y.data());
  }
  multiply_batch<T, Space>(false, transposed, batch, rows, n, k, a, b, y, bias != nullptr);
}

// The node of a product; `bias`: null where there is none.
template <class T, class Space>
[[gnu::noinline]] Ref<ProductNode<T, Space>> product_node(const char* name, const TensorImpl& a, const TensorImpl& b,
                                                          const TensorImpl* bias, const ProductShape& shape,
                                                          bool transposed) {
  auto node = make_node<ProductNode<T, Space>>(name, a.buffer, b.buffer, shape, transposed);
  node->inputs.push_back(a.slot);
  node->inputs.push_back(b.slot);
  if (bias != nullptr) node->inputs.push_back(bias->slot);
  return node;
}

template <bool Transposed, class Y, class A, class B, class Bias>
Y product(const char* name, const A& a, const B& b, [[maybe_unused]] const Bias& bias, const Extents& global) {
  using T = typename A::value_type;
  constexpr auto rule = matmul_of<A, B, Transposed>();
  Y y = make_tensor<T, A::rank, typename Y::layout_type>(global, a.mesh_state());
  const Extents& left = a.impl()->local;
  const Extents& right = b.impl()->local;
  constexpr int last = static_cast<int>(A::rank) - 1;
  constexpr int first = B::rank > 2 ? last - 1 : 0;  // the leading dimensions before it are a batch
  const ProductShape shape{left.elements(0, first), left.elements(first, last),
                           Transposed ? right[0] : right[right.rank - 1], left[last]};
  constexpr bool may_have_bias = !std::is_same_v<Bias, NoBias>;
  const TensorImpl* with_bias = nullptr;
  if constexpr (may_have_bias)
    if (bias.defined()) with_bias = bias.impl().get();
  bool bias_here = with_bias != nullptr;
  if constexpr (A::distributed)
    for (std::size_t i = 0; i < rule.out.size(); ++i)
      if (bias_counts_once(rule.out[i]) && a.mesh().grid().coordinate[i] != 0) bias_here = false;
  using Space = space_of<typename A::layout_type>;
  multiply<T, Space>(shape, Transposed, a.impl()->buffer, b.impl()->buffer, y.impl()->buffer,
                     bias_here ? &with_bias->buffer : nullptr);
  if constexpr (FieldElement<T>) {
    const bool slot_of_bias = with_bias != nullptr && with_bias->slot != nullptr;
    if (tape_state().enabled && (a.requires_grad() || b.requires_grad() || slot_of_bias)) {
      auto node = product_node<T, Space>(name, *a.impl(), *b.impl(), with_bias, shape, Transposed);
      constexpr PendingRule pa = pending_rule(A::placements, rule.out), pb = pending_rule(B::placements, rule.out);
      node->pa = pa;
      node->pb = pb;
      if constexpr (may_have_bias) {
        constexpr PendingRule pbias = bias_pending(Bias::placements, rule.out);
        node->pbias = pbias;
      }
      record(y, std::move(node));
    }
  }
  return y;
}

// Matrices, stacks of them times one, or two stacks alike.
template <std::size_t RA, std::size_t RB>
inline constexpr bool ranks_multiply = RA >= 2 && (RB == 2 || RB == RA);

template <class A, class B, bool Transposed>
using ProductResult = BasicTensor<typename A::value_type, A::rank,
                                  typename layout_with<typename A::layout_type, matmul_of<A, B, Transposed>()>::type>;

// The sizes of a product's result. `batched`: leading dimensions belong together.
inline Extents product_shape(Extents a, const Extents& b, bool batched) {
  const int last = a.rank - 1;
  bool fits = a[last] == b[batched ? last - 1 : 0];
  for (int d = 0; batched && d < last - 1; ++d) fits = fits && a[d] == b[d];
  SHARDWISE_REQUIRE(fits,
                    text("shardwise::matmul: shapes ", a, " and ", b, " differ in the inner dimension",
                         batched ? " or in a leading one" : ""),
                    ShapeError);
  a[last] = b[batched ? last : 1];
  return a;
}

// `bias`: null where there is none.
inline Extents linear_shape(Extents x, const Extents& weight, const Extents* bias) {
  std::int64_t& last = x[x.rank - 1];
  SHARDWISE_REQUIRE(last == weight[1],
                    text("shardwise::linear: an input of shape ", x, " does not fit a weight of shape ", weight,
                         ": its last size is the number of input features"),
                    ShapeError);
  last = weight[0];
  SHARDWISE_REQUIRE(bias == nullptr || (*bias)[0] == last,
                    text("shardwise::linear: a bias of shape ", *bias, " for ", last, " output features"), ShapeError);
  return x;
}

template <class X, class W, class Bias>
auto linear_of(const X& x, const W& weight, const Bias& bias) {
  static_assert(X::rank >= 1, "shardwise::linear: [O7] the input has at least one dimension");
  SHARDWISE_SAME_HOME("linear", X, W);
  if constexpr (!std::is_same_v<Bias, NoBias>) SHARDWISE_SAME_HOME("linear", X, Bias);
  constexpr auto rule = matmul_of<X, W, true>();
  static_assert(
      rule.ok,
      "shardwise::linear: [O8] the placements of input and weight do not fit: a weight Shard<0> takes a replicated input, a weight "
      "Shard<1> an input sharded along its last dimension; redistribute the input");
  using Y = ProductResult<X, W, true>;
  const Extents* bias_shape = nullptr;
  constexpr bool bias_at_home = bias_shares_home<X, Bias>;
  constexpr bool fits = bias_fits_rule<Bias>(rule.out, static_cast<int>(X::rank));
  static_assert(
      !(same_home<X, W> && bias_at_home && rule.ok) || fits,
      "shardwise::linear: [O9] the bias lies as the output features do: Shard<0> where the weight is Shard<0>, "
      "else Replicate");
  if constexpr (same_home<X, W> && bias_at_home && rule.ok && fits) {
    require_same_mesh("shardwise::linear", x, weight);
    if constexpr (!std::is_same_v<Bias, NoBias>)
      if (bias.defined()) {
        require_same_mesh("shardwise::linear", x, bias);
        bias_shape = &bias.impl()->global;
      }
    return product<true, Y>("linear", x, weight, bias,
                            linear_shape(x.impl()->global, weight.impl()->global, bias_shape));
  } else {
    return Y();
  }
}

}  // namespace detail

/// a (..., m, k) times b (k, n), or times a stack b (..., k, n) with the same leading sizes: (..., m, n).
/// PyTorch: `torch.matmul`, `torch.bmm`.
///
/// Placements per axis: rows of a sharded and b replicated (with one matrix b: any leading dimension too); a replicated and
/// columns of b sharded; both sharded along k, which gives a pending sum; two stacks sharded along the same leading dimension;
/// one of them pending and the other replicated. Throws `ShapeError` where the sizes differ.
template <Element T, std::size_t RA, class LA, std::size_t RB, class LB>
  requires(detail::ranks_multiply<RA, RB>)
auto matmul(const BasicTensor<T, RA, LA>& a, const BasicTensor<T, RB, LB>& b) {
  using A = BasicTensor<T, RA, LA>;
  using B = BasicTensor<T, RB, LB>;
  SHARDWISE_SAME_HOME("matmul", A, B);
  constexpr auto rule = detail::matmul_of<A, B, false>();
  static_assert(
      rule.ok,
      "shardwise::matmul: [O6] the placements do not fit: shard rows of the left, or columns of the right operand, or both along "
      "the inner dimension, or both along a leading one; redistribute one of them");
  using Y = detail::ProductResult<A, B, false>;
  if constexpr (detail::same_home<A, B> && rule.ok) {
    detail::require_same_mesh("shardwise::matmul", a, b);
    return detail::product<false, Y>("matmul", a, b, detail::NoBias(),
                                     detail::product_shape(a.impl()->global, b.impl()->global, (RB > 2)));
  } else {
    return Y();
  }
}

template <Element TA, std::size_t RA, class LA, Element TB, std::size_t RB, class LB>
  requires(!detail::ranks_multiply<RA, RB> || !std::is_same_v<TA, TB>)
BasicTensor<TA, RA, LA> matmul(const BasicTensor<TA, RA, LA>& a, const BasicTensor<TB, RB, LB>&) {
  static_assert(
      (detail::ranks_multiply<RA, RB>),
      "shardwise::matmul: [O19] the left operand has 2 or more dimensions and the right one 2, or as many; reshape(x, shape)");
  static_assert(!detail::ranks_multiply<RA, RB> || std::is_same_v<TA, TB>,
                "shardwise::matmul: [O20] both operands have one element type; cast<T>(x)");
  return a;
}

/// x (..., in) times weight (out, in) transposed, plus bias (out): (..., out). An undefined bias is none.
///
/// Placements per axis, as (x, weight, bias) -> y: (R, S0, S0) -> S(-1); (S(-1), S1, R) -> a pending sum, to which the first rank
/// alone adds the bias; (S(d), R, R) -> S(d); (R, R, R) -> R. Throws `ShapeError` where the sizes do not fit.
/// PyTorch: `torch.nn.functional.linear`.
template <Element T, std::size_t R, class LX, class LW, class LB>
auto linear(const BasicTensor<T, R, LX>& x, const BasicTensor<T, 2, LW>& weight, const BasicTensor<T, 1, LB>& bias) {
  return detail::linear_of(x, weight, bias);
}
template <Element T, std::size_t R, class LX, class LW>
auto linear(const BasicTensor<T, R, LX>& x, const BasicTensor<T, 2, LW>& weight) {
  return detail::linear_of(x, weight, detail::NoBias());
}
template <Element TX, std::size_t R, class LX, Element TW, class LW, class... Bias>
  requires(!std::is_same_v<TX, TW>)
auto linear(const BasicTensor<TX, R, LX>& x, const BasicTensor<TW, 2, LW>&, const Bias&...) {
  static_assert(std::is_same_v<TX, TW>, "shardwise::linear: [O20] input and weight have one element type; cast<T>(x)");
  return x;
}

}  // namespace shardwise
