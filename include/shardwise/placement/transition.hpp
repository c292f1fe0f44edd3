// transition<From, To>: what moving one axis from a placement to another takes, and which moves exist.
// The same rules for types and for values. Layer: placement.
#pragma once

#include <shardwise/placement/placement.hpp>

namespace shardwise {

namespace detail {

// redistribute refuses a Partial that the source is not; a sum can be made of a value locally.
constexpr bool can_redistribute(PlacementValue from, PlacementValue to) {
  if (!to.is_partial()) return true;
  if (from.is_partial()) return from.op == to.op;
  return to.op == ReduceOp::sum;
}

constexpr Collective collective_between(PlacementValue from, PlacementValue to) {
  if (from == to || to.is_partial()) return Collective::none;
  if (from.is_replicate()) return Collective::none;
  if (from.is_partial()) return to.is_replicate() ? Collective::all_reduce : Collective::reduce_scatter;
  return to.is_replicate() ? Collective::all_gather : Collective::all_to_all;
}

constexpr bool mixed_signs(PlacementValue a, PlacementValue b) {
  return a.is_split() && b.is_split() && (a.dim < 0) != (b.dim < 0);
}

}  // namespace detail

/// `To` is a Partial only where the source is the same one, or where it is a sum (design section 4).
template <class From, class To>
inline constexpr bool partial_is_reachable = true;
template <Placement From, ReduceOpTag Op>
inline constexpr bool partial_is_reachable<From, Partial<Op>> =
    detail::can_redistribute(placement_value<From>, placement_value<Partial<Op>>);

/// There is a move from `From` to `To` on one axis.
template <class From, class To>
concept RedistributableTo = Placement<From> && Placement<To> && partial_is_reachable<From, To>;

/// What a move on one axis takes: `transition<Shard<0>, Replicate>::collective == Collective::all_gather`.
///
/// `backward` is the collective of the gradient where the gradient that arrives is not pending,
/// `backward_pending` where it is (PyTorch: `torch/distributed/tensor/_redistribute.py`).
template <Placement From, Placement To>
  requires RedistributableTo<From, To>
struct transition {
  static_assert(!detail::mixed_signs(placement_value<From>, placement_value<To>),
                "shardwise::transition: [T1] one shard dimension counts from the front and one from the end; "
                "normalise them with Normalized<P, R> first");

  static constexpr Collective collective = detail::collective_between(placement_value<From>, placement_value<To>);
  static constexpr Collective backward =
      detail::collective_between(placement_value<GradientPlacement<To>>, placement_value<GradientPlacement<From>>);
  // A pending sum that the move does not touch stays pending.
  static constexpr Collective backward_pending =
      detail::collective_between(placement_value<To>.is_split() ? placement_value<To> : detail::partial_value(),
                                 placement_value<To>.is_split() || placement_value<From>.is_split() ||
                                         (placement_value<From>.is_partial() && !placement_value<To>.is_partial())
                                     ? placement_value<GradientPlacement<From>>
                                     : detail::partial_value());
  static constexpr bool communicates = collective != Collective::none;
};

}  // namespace shardwise
