// Placements: how a tensor lies on one axis of a mesh, as types for users and as values for the engine.
// Says nothing of meshes or memory. Layer: placement.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/text.hpp>

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

/// Dimension D in blocks of B, dealt to the ranks of the axis in turn; a rank stores its blocks in increasing order. The layout of
/// ScaLAPACK (`numroc`, `indxl2g` with the first block on rank 0). Negative D counts from the end.
template <int D, std::int64_t B>
struct BlockCyclic {
  static constexpr int dim = D;
  static constexpr std::int64_t block = B;
  friend constexpr bool operator==(const BlockCyclic&, const BlockCyclic&) = default;
};

/// Dimension D cut into F pieces by the chunk rule, each piece into one chunk per rank: a rank holds its chunk of every piece, in
/// increasing order. What `Shard` on a later axis of F ranks, applied first, leaves to this one: tensor-parallel, then data-parallel.
/// PyTorch: `_StridedShard(dim, split_factor=F)`.
template <int D, std::int64_t F>
struct StridedShard {
  static constexpr int dim = D;
  static constexpr std::int64_t split_factor = F;
  friend constexpr bool operator==(const StridedShard&, const StridedShard&) = default;
};

namespace detail {

enum class PlacementKind : std::uint8_t { replicate, shard, partial, block_cyclic, strided };

// A placement as a structural value: what planner and executor work on.
struct PlacementValue {
  PlacementKind kind = PlacementKind::replicate;
  ReduceOp op = ReduceOp::sum;  // of a partial
  int dim = 0;  // of what splits a dimension
  std::int64_t block = 0;  // of a block-cyclic one; the split factor of a strided one

  friend constexpr bool operator==(const PlacementValue&, const PlacementValue&) = default;
  constexpr bool is_shard() const { return kind == PlacementKind::shard; }
  constexpr bool is_shard(int d) const { return kind == PlacementKind::shard && dim == d; }
  // A rank holds part of dimension `dim`: one range of it (a shard) or several.
  constexpr bool is_split() const { return is_shard() || is_interleaved(); }
  constexpr bool is_split(int d) const { return is_split() && dim == d; }
  constexpr bool is_interleaved() const {
    return kind == PlacementKind::block_cyclic || kind == PlacementKind::strided;
  }
  constexpr bool is_replicate() const { return kind == PlacementKind::replicate; }
  constexpr bool is_partial() const { return kind == PlacementKind::partial; }
};

constexpr PlacementValue replicate_value() { return {}; }
constexpr PlacementValue shard_value(int d) { return {PlacementKind::shard, ReduceOp::sum, d, 0}; }
constexpr PlacementValue partial_value(ReduceOp op = ReduceOp::sum) { return {PlacementKind::partial, op, 0, 0}; }
constexpr PlacementValue block_cyclic_value(int d, std::int64_t block) {
  return {PlacementKind::block_cyclic, ReduceOp::sum, d, block};
}
constexpr PlacementValue strided_value(int d, std::int64_t split_factor) {
  return {PlacementKind::strided, ReduceOp::sum, d, split_factor};
}

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
template <int D, std::int64_t B>
struct placement_traits<BlockCyclic<D, B>> {
  static_assert(B >= 1, "shardwise::BlockCyclic: [B1] a block has at least one index");
  static constexpr bool known = true;
  static constexpr PlacementValue value = block_cyclic_value(D, B);
};
template <int D, std::int64_t F>
struct placement_traits<StridedShard<D, F>> {
  static_assert(F >= 1, "shardwise::StridedShard: [B2] the split factor is at least one");
  static constexpr bool known = true;
  static constexpr PlacementValue value = strided_value(D, F);
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

// A value as one number, and back to its type. g++ 12 crashes on an alias template that reads the members of a
// class-type argument, so the value travels as a number.
constexpr std::int64_t placement_code(PlacementValue p) {
  return static_cast<int>(p.kind) + 8 * static_cast<int>(p.op) + 64 * (p.dim + 64) + 8192 * p.block;
}
template <std::int64_t Code, int Kind = static_cast<int>(Code % 8)>
struct placement_of {
  using type = Replicate;
};
template <std::int64_t Code>
struct placement_of<Code, static_cast<int>(PlacementKind::shard)> {
  using type = Shard<static_cast<int>(Code / 64 % 128) - 64>;
};
template <std::int64_t Code>
struct placement_of<Code, static_cast<int>(PlacementKind::partial)> {
  using type = Partial<typename op_tag<static_cast<int>(Code % 64 / 8)>::type>;
};
template <std::int64_t Code>
struct placement_of<Code, static_cast<int>(PlacementKind::block_cyclic)> {
  using type = BlockCyclic<static_cast<int>(Code / 64 % 128) - 64, Code / 8192>;
};
template <std::int64_t Code>
struct placement_of<Code, static_cast<int>(PlacementKind::strided)> {
  using type = StridedShard<static_cast<int>(Code / 64 % 128) - 64, Code / 8192>;
};
template <std::int64_t Code>
using placement_type = typename placement_of<Code>::type;

template <std::size_t N>
using PlacementList = std::array<PlacementValue, N>;

[[gnu::cold]] inline std::string to_string(const PlacementValue& p) {
  switch (p.kind) {
    case PlacementKind::replicate: return "R";
    case PlacementKind::shard: return text("S(", p.dim, ")");
    case PlacementKind::block_cyclic: return text("BC(", p.dim, ",", p.block, ")");
    case PlacementKind::strided: return text("SS(", p.dim, ",", p.block, ")");
    case PlacementKind::partial: break;
  }
  return text("P(", shardwise::to_string(p.op), ")");
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
  if (p.is_split() && p.dim < 0) p.dim += rank;
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
template <int D, std::int64_t B, std::size_t R>
inline constexpr bool shard_dim_in_range<BlockCyclic<D, B>, R> = shard_dim_in_range<Shard<D>, R>;
template <int D, std::int64_t F, std::size_t R>
inline constexpr bool shard_dim_in_range<StridedShard<D, F>, R> = shard_dim_in_range<Shard<D>, R>;

/// Spelled as a `DTensor` type needs it: not counted from the end.
template <Placement P>
inline constexpr bool shard_dim_is_normalized = true;
template <int D>
inline constexpr bool shard_dim_is_normalized<Shard<D>> = D >= 0;
template <int D, std::int64_t B>
inline constexpr bool shard_dim_is_normalized<BlockCyclic<D, B>> = D >= 0;
template <int D, std::int64_t F>
inline constexpr bool shard_dim_is_normalized<StridedShard<D, F>> = D >= 0;

namespace detail {
// The gradient of what splits a dimension is split alike; of anything else it is replicated (design section 5).
constexpr PlacementValue gradient_of(PlacementValue p) { return p.is_split() ? p : replicate_value(); }

// Some rank holds more than one range of a dimension: boxes do not tell what, index sets do.
template <std::size_t N>
constexpr bool is_interleaved(const PlacementList<N>& list) {
  for (const PlacementValue& p : list)
    if (p.is_interleaved()) return true;
  return false;
}
}  // namespace detail

/// The placement of the gradient of a value placed P (a replicated one may be pending as well).
template <Placement P>
using GradientPlacement = detail::placement_type<detail::placement_code(detail::gradient_of(placement_value<P>))>;

}  // namespace shardwise
