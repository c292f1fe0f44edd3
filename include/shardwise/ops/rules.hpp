// Placement rules of operators: per mesh axis, from the placements of the operands to that of the result, as
// constexpr functions over values; and which part of an operand's gradient is pending. Layer: ops.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include <shardwise/base/error.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise::detail {

// What a rule says of one axis or of all of them.
struct AxisRule {
  bool ok = true;
  PlacementValue out = replicate_value();
};
inline constexpr AxisRule no_rule{false, replicate_value()};

template <std::size_t N>
struct PlacementRule {
  bool ok = true;
  PlacementList<N> out{};
};

template <std::size_t N, class F>
constexpr PlacementRule<N> rule_for_each_axis(const PlacementList<N>& a, const PlacementList<N>& b, F f) {
  PlacementRule<N> rule;
  for (std::size_t i = 0; i < N; ++i) {
    const AxisRule one = f(a[i], b[i]);
    rule.ok = rule.ok && one.ok;
    rule.out[i] = one.out;
  }
  rule.ok = rule.ok && partials_mix(rule.out);
  return rule;
}

template <std::size_t N, class F>
constexpr PlacementRule<N> rule_for_each_axis(const PlacementList<N>& a, F f) {
  return rule_for_each_axis(a, a, [&](PlacementValue p, PlacementValue) { return f(p); });
}

constexpr bool is_linear_partial(PlacementValue p) {
  return p.is_partial() && (p.op == ReduceOp::sum || p.op == ReduceOp::avg);
}

// Elementwise and nonlinear: every element is a value, whole on its rank.
constexpr AxisRule value_rule(PlacementValue p) {
  if (p.is_partial()) return no_rule;
  return {true, p};
}

// Elementwise and linear: f(sum of terms) is the sum of f(term).
constexpr AxisRule linear_rule(PlacementValue p) {
  if (p.is_partial() && !is_linear_partial(p)) return no_rule;
  return {true, p};
}

// -max(a, b) is min(-a, -b).
constexpr AxisRule negation_rule(PlacementValue p) {
  if (p.is_partial() && p.op == ReduceOp::product) return no_rule;
  if (p.is_partial() && p.op == ReduceOp::max) return {true, partial_value(ReduceOp::min)};
  if (p.is_partial() && p.op == ReduceOp::min) return {true, partial_value(ReduceOp::max)};
  return {true, p};
}

enum class Arithmetic { add, multiply, divide };

// a op b with trailing dimensions aligned; `missing_a` leading dimensions of the result are not in a, `missing_b` not in b.
constexpr AxisRule arithmetic_rule(Arithmetic kind, PlacementValue a, PlacementValue b, int missing_a, int missing_b) {
  if (a.is_split()) a.dim += missing_a;
  if (b.is_split()) b.dim += missing_b;
  if (a.is_partial() || b.is_partial()) {
    if (a.is_split() || b.is_split()) return no_rule;
    if (kind == Arithmetic::add) return a == b && is_linear_partial(a) ? AxisRule{true, a} : no_rule;
    if (a.is_partial() && b.is_replicate() && is_linear_partial(a)) return {true, a};
    if (kind == Arithmetic::multiply && a.is_replicate() && is_linear_partial(b)) return {true, b};
    return no_rule;
  }
  if (a == b) return {true, a};
  if (a.is_split() && b.is_replicate() && a.dim < missing_b) return {true, a};  // b is repeated along it
  if (b.is_split() && a.is_replicate() && b.dim < missing_a) return {true, b};
  return no_rule;
}

// (..., m, k) x (k, n): `rank` is that of a; `transposed`: b is (n, k), as the weight of a linear layer.
constexpr AxisRule matmul_rule(PlacementValue a, PlacementValue b, int rank, bool transposed) {
  const int contraction = transposed ? 1 : 0;
  const int columns = 1 - contraction;
  const int last = rank - 1;
  if (a.is_shard(last) && b.is_shard(contraction)) return {true, partial_value()};
  if (a.is_shard() && a.dim < last && b.is_replicate()) return {true, a};
  if (a.is_replicate() && b.is_shard(columns)) return {true, shard_value(last)};
  if (a.is_replicate() && b.is_replicate()) return {true, replicate_value()};
  if (is_linear_partial(a) && b.is_replicate()) return {true, a};
  if (a.is_replicate() && is_linear_partial(b)) return {true, b};
  return no_rule;
}

// (..., m, k) x (..., k, n), both of this rank.
constexpr AxisRule batched_matmul_rule(PlacementValue a, PlacementValue b, int rank) {
  const int last = rank - 1, rows = rank - 2;
  if (a.is_shard() && a == b && a.dim < rows) return {true, a};
  if (a.is_shard(last) && b.is_shard(rows)) return {true, partial_value()};
  if (a.is_shard(rows) && b.is_replicate()) return {true, a};
  if (a.is_replicate() && b.is_shard(last)) return {true, b};
  if (a.is_replicate() && b.is_replicate()) return {true, a};
  if (is_linear_partial(a) && b.is_replicate()) return {true, a};
  if (a.is_replicate() && is_linear_partial(b)) return {true, b};
  return no_rule;
}

// Dimension d disappears by summation.
constexpr AxisRule sum_rule(PlacementValue p, int d) {
  if (p.is_split()) {
    if (p.dim == d) return {true, partial_value()};
    if (p.dim > d) --p.dim;
    return {true, p};
  }
  return linear_rule(p);
}

// Dimension d must be whole on the rank (softmax, norms, concat).
constexpr AxisRule whole_dimension_rule(PlacementValue p, int d) {
  if (p.is_partial() || p.is_split(d)) return no_rule;
  return {true, p};
}

// Which axes of an operand's gradient are pending: those where the operand is replicated and the result is not
// (sharded or partial work gives partial contributions), and those where the gradient that arrived is pending.
//
// `whole`: the result is a term made of something else than a term. Its gradient must be complete, and is: only
// to_local<Partial<>>(term) can say otherwise.
struct PendingRule {
  std::uint32_t always = 0;
  std::uint32_t passed = 0;
  std::uint32_t whole = 0;
  std::uint32_t operator()(std::uint32_t arrived) const {
    SHARDWISE_REQUIRE(
        (arrived & whole) == 0,
        "shardwise::backward: the gradient of a pending sum is declared to be pending itself, and an operator needs it "
        "complete; write to_local(x) instead of to_local<Partial<>>(x), or redistribute<Replicate>(x) before it");
    return always | (arrived & passed);
  }
};

template <std::size_t N>
constexpr PendingRule pending_rule(const PlacementList<N>& operand, const PlacementList<N>& result) {
  PendingRule rule;
  for (std::size_t i = 0; i < N; ++i) {
    if (result[i].is_partial() && !operand[i].is_partial()) rule.whole |= 1u << i;
    if (operand[i].is_split()) continue;
    if (operand[i].is_replicate() && !result[i].is_replicate())
      rule.always |= 1u << i;
    else
      rule.passed |= 1u << i;
  }
  return rule;
}

// The result type: Layout of the mesh of L with the placements that the rule found.
template <class L, auto R>
struct layout_with {
  using type = L;
};
template <class Mesh, Placement... P, auto R>
struct layout_with<Distributed<Mesh, P...>, R> {
  using type = typename distributed_of<Mesh, R.out>::type;
};

// Both plain, or both on the same type of mesh.
template <class A, class B>
inline constexpr bool same_home =
    std::is_same_v<typename A::Mesh, typename B::Mesh> && A::distributed == B::distributed;

template <class A, class B>
void require_same_mesh(const char* function, const A& a, const B& b) {
  if constexpr (A::distributed)
    SHARDWISE_REQUIRE(a.mesh() == b.mesh(), text(function, ": the operands lie on different meshes"));
}

// Of dimensions that are given at run time: never.
template <class... Dimension>
inline constexpr bool dimensions_are_template_arguments = false;

// Two operands and a plain one: what to write instead.
#define SHARDWISE_SAME_HOME(function, A, B)                                                                        \
  static_assert(::shardwise::detail::same_home<A, B>,                                                              \
                "shardwise::" function ": [O1] one operand is plain or lies on another mesh; bring it there with " \
                "distribute_tensor<P...>(x, mesh) or from_local<P...>(x, mesh)")

}  // namespace shardwise::detail
