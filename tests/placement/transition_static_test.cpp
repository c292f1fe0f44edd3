// The table of moves on one axis, the rules of types and values. Compiling it is the test.
#include <shardwise/placement/box.hpp>
#include <shardwise/placement/placement.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/redistribute.hpp>

namespace {

using namespace shardwise;
using enum Collective;

template <class From, class To>
constexpr bool row(Collective forward, Collective backward, Collective backward_pending) {
  using Move = transition<From, To>;
  return Move::collective == forward && Move::backward == backward && Move::backward_pending == backward_pending &&
         Move::communicates == (forward != none);
}

// from, to: forward, backward of a complete gradient, backward of a pending one
static_assert(row<Replicate, Replicate>(none, none, none));
static_assert(row<Replicate, Shard<0>>(none, all_gather, all_gather));
static_assert(row<Replicate, Shard<1>>(none, all_gather, all_gather));
static_assert(row<Replicate, Partial<>>(none, none, none));
static_assert(row<Shard<0>, Replicate>(all_gather, none, reduce_scatter));
static_assert(row<Shard<1>, Replicate>(all_gather, none, reduce_scatter));
static_assert(row<Shard<0>, Shard<0>>(none, none, none));
static_assert(row<Shard<0>, Shard<1>>(all_to_all, all_to_all, all_to_all));
static_assert(row<Shard<1>, Shard<0>>(all_to_all, all_to_all, all_to_all));
static_assert(row<Shard<-1>, Shard<-2>>(all_to_all, all_to_all, all_to_all));
static_assert(row<Shard<0>, Partial<>>(none, none, reduce_scatter));
static_assert(row<Partial<>, Replicate>(all_reduce, none, all_reduce));
static_assert(row<Partial<>, Shard<0>>(reduce_scatter, all_gather, all_gather));
static_assert(row<Partial<>, Shard<1>>(reduce_scatter, all_gather, all_gather));
static_assert(row<Partial<>, Partial<>>(none, none, none));
static_assert(row<Partial<Avg>, Replicate>(all_reduce, none, all_reduce));
static_assert(row<Partial<Avg>, Shard<0>>(reduce_scatter, all_gather, all_gather));
static_assert(row<Partial<Avg>, Partial<Avg>>(none, none, none));
static_assert(transition<Partial<Max>, Replicate>::collective == all_reduce);
static_assert(transition<Partial<Max>, Shard<0>>::collective == reduce_scatter);
static_assert(transition<Partial<Max>, Partial<Max>>::collective == none);
static_assert(transition<Partial<Min>, Replicate>::collective == all_reduce);
static_assert(transition<Partial<Min>, Shard<2>>::collective == reduce_scatter);
static_assert(transition<Partial<Product>, Replicate>::collective == all_reduce);
static_assert(transition<Partial<Product>, Shard<0>>::collective == reduce_scatter);

// RD-19, RD-31: which targets exist
static_assert(RedistributableTo<Replicate, Partial<>>);
static_assert(RedistributableTo<Shard<0>, Partial<>>);
static_assert(RedistributableTo<Partial<Max>, Partial<Max>>);
static_assert(RedistributableTo<Partial<Product>, Replicate>);
static_assert(RedistributableTo<Partial<Product>, Shard<3>>);
static_assert(!RedistributableTo<Partial<>, Partial<Avg>>);
static_assert(!RedistributableTo<Partial<Avg>, Partial<>>);
static_assert(!RedistributableTo<Partial<Max>, Partial<>>);
static_assert(!RedistributableTo<Partial<Sum>, Partial<Max>>);
static_assert(!RedistributableTo<Replicate, Partial<Avg>>);
static_assert(!RedistributableTo<Replicate, Partial<Max>>);
static_assert(!RedistributableTo<Replicate, Partial<Min>>);
static_assert(!RedistributableTo<Replicate, Partial<Product>>);
static_assert(!RedistributableTo<Shard<0>, Partial<Max>>);
static_assert(!RedistributableTo<int, Replicate>);
static_assert(!RedistributableTo<Replicate, int>);

static_assert(Placement<Shard<0>> && Placement<Shard<-7>> && Placement<Replicate> && Placement<Partial<Max>>);
static_assert(!Placement<int> && !Placement<Sum>);

// PT-2: equality
static_assert(Shard<3>() == Shard<3>());
static_assert(placement_value<Shard<3>> != placement_value<Shard<4>>);
static_assert(placement_value<Partial<Sum>> != placement_value<Partial<Max>>);
static_assert(placement_value<Replicate> != placement_value<Partial<Sum>>);
static_assert(placement_value<Replicate> != placement_value<Shard<0>>);

// a type to its value and back
template <class P>
constexpr bool survives = std::is_same_v<detail::placement_type<detail::placement_code(placement_value<P>)>, P>;
static_assert(survives<Replicate> && survives<Shard<0>> && survives<Shard<7>> && survives<Shard<-8>>);
static_assert(survives<Partial<Sum>> && survives<Partial<Avg>> && survives<Partial<Product>>);
static_assert(survives<Partial<Max>> && survives<Partial<Min>>);

// AP-2, DT-10, RD-12: dimensions counted from the end
static_assert(std::is_same_v<Normalized<Shard<-1>, 2>, Shard<1>>);
static_assert(std::is_same_v<Normalized<Shard<-2>, 2>, Shard<0>>);
static_assert(std::is_same_v<Normalized<Shard<1>, 2>, Shard<1>>);
static_assert(std::is_same_v<Normalized<Replicate, 2>, Replicate>);
static_assert(std::is_same_v<Normalized<Partial<Max>, 0>, Partial<Max>>);
static_assert(shard_dim_in_range<Shard<1>, 2> && shard_dim_in_range<Shard<-2>, 2> && shard_dim_in_range<Replicate, 0>);
static_assert(!shard_dim_in_range<Shard<2>, 2> && !shard_dim_in_range<Shard<-3>, 2> &&
              !shard_dim_in_range<Shard<0>, 0>);
static_assert(shard_dim_is_normalized<Shard<0>> && !shard_dim_is_normalized<Shard<-1>> &&
              shard_dim_is_normalized<Partial<>>);

// where the gradient lies
static_assert(std::is_same_v<GradientPlacement<Shard<1>>, Shard<1>>);
static_assert(std::is_same_v<GradientPlacement<Replicate>, Replicate>);
static_assert(std::is_same_v<GradientPlacement<Partial<>>, Replicate>);
static_assert(std::is_same_v<GradientPlacement<Partial<Avg>>, Replicate>);

// The trait and what the tape does agree: every pair, both kinds of gradient.
template <class From, class To>
constexpr bool trait_is_tape() {
  using List = detail::PlacementList<1>;
  const List from{placement_value<From>}, to{placement_value<To>};
  const Shape<1> mesh{4};
  const auto collective = [&](std::uint32_t pending) {
    const List have = detail::arrived(to, pending);
    return detail::move_kind(have, detail::needed(from, to, have), mesh).collective;
  };
  return detail::move_kind(from, to, mesh).collective == transition<From, To>::collective &&
         collective(0) == transition<From, To>::backward && collective(1) == transition<From, To>::backward_pending;
}
template <class From>
constexpr bool row_is_tape =
    trait_is_tape<From, Replicate>() && trait_is_tape<From, Shard<0>>() && trait_is_tape<From, Shard<1>>();
static_assert(row_is_tape<Replicate> && trait_is_tape<Replicate, Partial<>>());
static_assert(row_is_tape<Shard<0>> && trait_is_tape<Shard<0>, Partial<>>());
static_assert(row_is_tape<Shard<1>> && trait_is_tape<Shard<1>, Partial<>>());
static_assert(row_is_tape<Partial<>> && trait_is_tape<Partial<>, Partial<>>());
static_assert(row_is_tape<Partial<Avg>> && trait_is_tape<Partial<Avg>, Partial<Avg>>());

// catalogue 2.1, DS-1, UT-1: n over k ranks
constexpr bool sizes(std::int64_t n, std::initializer_list<std::int64_t> expected) {
  const auto k = static_cast<std::int64_t>(expected.size());
  std::int64_t i = 0;
  std::int64_t next = 0;
  for (const std::int64_t size : expected) {
    const detail::Range r = detail::chunk({0, n}, k, i++);
    if (r.size != size || r.offset != next) return false;
    next += size;
  }
  return next == n;
}
static_assert(sizes(12, {3, 3, 3, 3}) && sizes(13, {4, 4, 4, 1}) && sizes(14, {4, 4, 4, 2}) && sizes(5, {2, 2, 1, 0}));
static_assert(sizes(9, {3, 3, 3, 0}) && sizes(2, {1, 1, 0, 0}) && sizes(0, {0, 0, 0, 0}) && sizes(31, {8, 8, 8, 7}));
static_assert(sizes(32, {11, 11, 10}) && sizes(11, {2, 2, 2, 2, 2, 1, 0, 0}) && sizes(1, {1}) && sizes(0, {0}));
static_assert(sizes(7, {1, 1, 1, 1, 1, 1, 1, 0}) && sizes(3, {1, 1, 1, 0, 0, 0, 0, 0}));

// RD-16, RD-25, RD-53: one collective whatever the number of axes
constexpr detail::PlacementValue R = detail::replicate_value(), S0 = detail::shard_value(0),
                                 S1 = detail::shard_value(1), S2 = detail::shard_value(2), P = detail::partial_value();
template <std::size_t N>
constexpr Collective kind(const detail::PlacementValue (&from)[N], const detail::PlacementValue (&to)[N]) {
  detail::PlacementList<N> a{}, b{};
  Shape<N> mesh{};
  for (std::size_t i = 0; i < N; ++i) {
    a[i] = from[i];
    b[i] = to[i];
    mesh[i] = 2;
  }
  return detail::move_kind(a, b, mesh).collective;
}
static_assert(kind({S0, S1}, {S1, S0}) == all_to_all && kind({S0, S0}, {S1, S1}) == all_to_all);
static_assert(kind({S0, S1}, {S0, S0}) == all_to_all && kind({S0, S0, S0}, {S1, S1, S1}) == all_to_all);
static_assert(kind({S0, S1, S2}, {S2, S1, S0}) == all_to_all && kind({S1, S0, S0}, {R, S0, S0}) == all_gather);
static_assert(kind({P, P}, {R, R}) == all_reduce && kind({P, P}, {S0, S0}) == reduce_scatter);
static_assert(kind({P, P}, {S0, S1}) == reduce_scatter && kind({S0, S1}, {R, R}) == all_gather);
static_assert(kind({P, P, S0}, {S0, S0, S0}) == reduce_scatter && kind({P, S0, P}, {R, R, R}) == all_reduce);
static_assert(kind({R, R}, {S0, S1}) == none && kind({R, S0}, {S0, S0}) == all_to_all &&
              kind({S0, R}, {S0, S0}) == none);
static_assert(kind({R, S0}, {S0, R}) == all_gather && kind({R, R}, {P, P}) == none);
static_assert(
    detail::move_kind(detail::PlacementList<2>{S0, S1}, detail::PlacementList<2>{S0, R}, Shape<2>{2, 2}).axes == 2u);
static_assert(
    detail::move_kind(detail::PlacementList<2>{S0, P}, detail::PlacementList<2>{S0, R}, Shape<2>{4, 1}).axes == 0u);

// DS-7: pending reductions of one tensor
static_assert(detail::partials_mix(detail::PlacementList<2>{P, detail::partial_value(ReduceOp::avg)}));
static_assert(!detail::partials_mix(detail::PlacementList<2>{P, detail::partial_value(ReduceOp::max)}));
static_assert(!detail::partials_mix(detail::PlacementList<2>{detail::partial_value(ReduceOp::min),
                                                             detail::partial_value(ReduceOp::max)}));
static_assert(detail::partials_mix(detail::PlacementList<2>{detail::partial_value(ReduceOp::min),
                                                            detail::partial_value(ReduceOp::min)}));

}  // namespace
