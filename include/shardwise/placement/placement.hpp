// Placements: how a tensor lies on one axis of a mesh, as types for users and as values for the engine.
// Says nothing of meshes or memory. Layer: placement.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include <shardwise/base/collective.hpp>

namespace shardwise {

/// Split along tensor dimension D of the global shape by the chunk rule (`torch.chunk`); negative D counts
/// from the end. PyTorch: `Shard(dim)`.
template <int D>
struct Shard {
  static constexpr int dim = D;
  friend constexpr bool operator==(const Shard&, const Shard&) = default;
};

/// Every rank of the axis holds the same values. PyTorch: `Replicate()`.
struct Replicate {
  friend constexpr bool operator==(const Replicate&, const Replicate&) = default;
};

/// Every rank of the axis holds a term; the value is their reduction. PyTorch: `Partial(reduce_op)`.
template <ReduceOpTag Op = Sum>
struct Partial {
  static constexpr ReduceOp op = Op::op;
  friend constexpr bool operator==(const Partial&, const Partial&) = default;
};

namespace detail {

enum class PlacementKind : std::uint8_t { replicate, shard, partial };

// A placement as a structural value: what planner and executor work on.
struct PlacementValue {
  PlacementKind kind = PlacementKind::replicate;
  int dim = 0;                  // of a shard
  ReduceOp op = ReduceOp::sum;  // of a partial

  friend constexpr bool operator==(const PlacementValue&, const PlacementValue&) = default;
  constexpr bool is_shard() const { return kind == PlacementKind::shard; }
  constexpr bool is_shard(int d) const { return kind == PlacementKind::shard && dim == d; }
  constexpr bool is_replicate() const { return kind == PlacementKind::replicate; }
  constexpr bool is_partial() const { return kind == PlacementKind::partial; }
};

constexpr PlacementValue replicate_value() { return {}; }
constexpr PlacementValue shard_value(int d) { return {PlacementKind::shard, d, ReduceOp::sum}; }
constexpr PlacementValue partial_value(ReduceOp op = ReduceOp::sum) { return {PlacementKind::partial, 0, op}; }

template <class P>
struct placement_traits {
  static constexpr bool known = false;
};
template <int D>
struct placement_traits<Shard<D>> {
  static constexpr bool known = true;
  static constexpr PlacementValue value = shard_value(D);
};
template <>
struct placement_traits<Replicate> {
  static constexpr bool known = true;
  static constexpr PlacementValue value = replicate_value();
};
template <ReduceOpTag Op>
struct placement_traits<Partial<Op>> {
  static constexpr bool known = true;
  static constexpr PlacementValue value = partial_value(Op::op);
};

template <int Op>
struct op_tag;
template <>
struct op_tag<0> {
  using type = Sum;
};
template <>
struct op_tag<1> {
  using type = Avg;
};
template <>
struct op_tag<2> {
  using type = Product;
};
template <>
struct op_tag<3> {
  using type = Max;
};
template <>
struct op_tag<4> {
  using type = Min;
};

// A value as one int, and back to its type. g++ 12 crashes on an alias template that reads the members of a
// class-type argument, so the value travels as a number.
constexpr int placement_code(PlacementValue p) {
  return static_cast<int>(p.kind) + 4 * static_cast<int>(p.op) + 64 * (p.dim + 64);
}
template <int Code, int Kind = Code % 4>
struct placement_of {
  using type = Replicate;
};
template <int Code>
struct placement_of<Code, static_cast<int>(PlacementKind::shard)> {
  using type = Shard<Code / 64 - 64>;
};
template <int Code>
struct placement_of<Code, static_cast<int>(PlacementKind::partial)> {
  using type = Partial<typename op_tag<Code % 64 / 4>::type>;
};
template <int Code>
using placement_type = typename placement_of<Code>::type;

template <std::size_t N>
using PlacementList = std::array<PlacementValue, N>;

inline std::string to_string(const PlacementValue& p) {
  switch (p.kind) {
    case PlacementKind::replicate: return "R";
    case PlacementKind::shard: return "S(" + std::to_string(p.dim) + ")";
    case PlacementKind::partial: break;
  }
  return std::string("P(") + shardwise::to_string(p.op) + ")";
}

template <std::size_t N>
std::string to_string(const PlacementList<N>& list) {
  std::string s;
  for (const PlacementValue& p : list) s += to_string(p);
  return s;
}

}  // namespace detail

/// A placement type of the library.
template <class P>
concept Placement = detail::placement_traits<P>::known;

template <Placement P>
inline constexpr detail::PlacementValue placement_value = detail::placement_traits<P>::value;

namespace detail {
constexpr PlacementValue normalized(PlacementValue p, int rank) {
  if (p.is_shard() && p.dim < 0) p.dim += rank;
  return p;
}
}  // namespace detail

/// `Shard<-1>` of a tensor of rank R is `Shard<R - 1>`; everything else is itself.
template <Placement P, std::size_t R>
using Normalized =
    detail::placement_type<detail::placement_code(detail::normalized(placement_value<P>, static_cast<int>(R)))>;

/// The shard dimension exists in a tensor of rank R. True of what does not shard.
template <Placement P, std::size_t R>
inline constexpr bool shard_dim_in_range = true;
template <int D, std::size_t R>
inline constexpr bool shard_dim_in_range<Shard<D>, R> = D >= -static_cast<int>(R) && D < static_cast<int>(R);

/// Spelled as a `DTensor` type needs it: not counted from the end.
template <Placement P>
inline constexpr bool shard_dim_is_normalized = true;
template <int D>
inline constexpr bool shard_dim_is_normalized<Shard<D>> = D >= 0;

namespace detail {
// The gradient of a shard is sharded alike; of anything else it is replicated (design section 5).
constexpr PlacementValue gradient_of(PlacementValue p) { return p.is_shard() ? p : replicate_value(); }
}  // namespace detail

/// The placement of the gradient of a value placed P (a replicated one may be pending as well).
template <Placement P>
using GradientPlacement = detail::placement_type<detail::placement_code(detail::gradient_of(placement_value<P>))>;

}  // namespace shardwise
