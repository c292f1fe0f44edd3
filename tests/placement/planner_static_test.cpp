// Plans of redistributions as users assert them, row by row of PyTorch's tests. Compiling it is the test.
#include <shardwise/redistribute/plan_redistribute.hpp>

namespace {

using namespace shardwise;
using enum Collective;
using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;
using S2 = Shard<2>;
using P = Partial<>;

// One step of this collective over these axes.
constexpr bool one(const RedistributePlan& plan, Collective collective, std::uint32_t axes) {
  return plan.size() == 1 && plan[0].collective == collective && plan[0].axes == axes && !plan.axis_by_axis;
}
template <class From, class To>
constexpr RedistributePlan on(const std::int64_t (&mesh)[2]) {
  return plan_redistribute<From, To>(mesh);
}
template <class From, class To>
constexpr RedistributePlan cube = plan_redistribute<From, To>({2, 2, 2});

// One axis: the table of the named collectives.
static_assert(one(plan_redistribute<Placements<S0>, Placements<R>>({4}), all_gather, 1));
static_assert(one(plan_redistribute<Placements<S0>, Placements<S1>>({4}), all_to_all, 1));
static_assert(one(plan_redistribute<Placements<P>, Placements<R>>({4}), all_reduce, 1));
static_assert(one(plan_redistribute<Placements<P>, Placements<S1>>({4}), reduce_scatter, 1));
static_assert(one(plan_redistribute<Placements<R>, Placements<S1>>({4}), none, 0));
static_assert(one(plan_redistribute<Placements<S0>, Placements<P>>({4}), none, 0));
static_assert(plan_redistribute<Placements<P>, Placements<P>>({4}).size() == 0);

// RD-16: one collective each, where PyTorch takes 1, 2 and 2
static_assert(one(on<Placements<S0, S1>, Placements<S0, S0>>({2, 2}), all_to_all, 2));
static_assert(one(on<Placements<S0, S1>, Placements<S1, S0>>({2, 2}), all_to_all, 3));
static_assert(one(on<Placements<S0, S0>, Placements<S1, S1>>({2, 2}), all_to_all, 3));
static_assert(one(on<Placements<S0, S2>, Placements<S1, S0>>({2, 2}), all_to_all, 3));
static_assert(one(on<Placements<S1, S1>, Placements<S1, S2>>({2, 2}), all_to_all, 2));

// RD-18: an axis of one rank is a relabelling
static_assert(on<Placements<S0, P>, Placements<S0, S1>>({4, 1}).size() == 0);

// RD-25: one each, where PyTorch takes 3, 3, 2, 1, 2 and 2
static_assert(one(cube<Placements<S0, S0, S0>, Placements<S1, S1, S1>>, all_to_all, 7));
static_assert(one(cube<Placements<S0, S1, S0>, Placements<S1, S0, S0>>, all_to_all, 7));
static_assert(one(cube<Placements<S0, S1, S2>, Placements<S2, S1, S0>>, all_to_all, 5));
static_assert(one(cube<Placements<S1, S0, S0>, Placements<R, S0, S0>>, all_gather, 1));
static_assert(one(cube<Placements<S1, R, S0>, Placements<R, S0, S0>>, all_to_all, 5));
static_assert(one(cube<Placements<S0, S0, S1>, Placements<S0, S1, S2>>, all_to_all, 6));

// RD-53: one each, where PyTorch takes 1, 1, 2, 1, 2, 3, 1, 3, 1, 2 and 2
static_assert(one(on<Placements<P, P>, Placements<R, R>>({4, 2}), all_reduce, 3));
static_assert(one(on<Placements<P, P>, Placements<S0, S0>>({4, 2}), reduce_scatter, 3));
static_assert(one(on<Placements<P, P>, Placements<S0, S1>>({4, 2}), reduce_scatter, 3));
static_assert(one(on<Placements<S0, S0>, Placements<R, R>>({4, 2}), all_gather, 3));
static_assert(one(on<Placements<S0, S1>, Placements<R, R>>({4, 2}), all_gather, 3));
static_assert(one(cube<Placements<P, P, S0>, Placements<S0, S0, S0>>, reduce_scatter, 7));
static_assert(one(cube<Placements<P, P, P>, Placements<R, R, R>>, all_reduce, 7));
static_assert(one(cube<Placements<P, S0, P>, Placements<R, R, R>>, all_reduce, 7));
static_assert(one(cube<Placements<P, R, P>, Placements<R, R, R>>, all_reduce, 5));
static_assert(one(cube<Placements<P, P, R>, Placements<S0, S1, R>>, reduce_scatter, 3));
static_assert(one(cube<Placements<P, P, P>, Placements<S0, S0, S1>>, reduce_scatter, 7));

// What each rank cuts for itself, or makes a term of, needs no meeting along that axis.
static_assert(one(on<Placements<R, S0>, Placements<S1, R>>({2, 2}), all_gather, 2));
static_assert(one(on<Placements<S0, R>, Placements<S1, P>>({2, 2}), all_to_all, 1));

// Elements and messages of the busiest rank.
constexpr auto swap = plan_redistribute<Placements<S0, S1>, Placements<S1, S0>>({2, 2}, {12, 12});
static_assert(swap[0].elements == 36 && swap[0].messages == 1);  // the diagonal keeps its block, the others swap theirs
constexpr auto gather = plan_redistribute<Placements<S0, S0>, Placements<R, R>>({4, 2}, {16, 3});
static_assert(gather.elements() == 42 && gather.messages() == 3);
constexpr auto reduce = plan_redistribute<Placements<P>, Placements<R>>({4}, {8});
static_assert(reduce.elements() == 12);  // 2 * 8 * 3 / 4
constexpr auto lonely = plan_redistribute<Placements<S0>, Placements<R>>({4}, {5, 3});  // 2, 2, 1 and 0 rows
static_assert(lonely.elements() == 15);
static_assert(plan_redistribute<Placements<S0, S0, S0, S0>, Placements<S1, S1, S1, S1>>({2, 2, 2, 2}, {4096, 4096})
                  .elements() == 983040);

// At many ranks and few bytes the cost model goes axis by axis: 63 messages of one exchange are more than 34 of two, whose
// elements travel twice. Many bytes go at once.
constexpr auto apart = plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>({32, 32}, {4096, 4096});
static_assert(apart.size() == 2 && apart.axis_by_axis && apart.messages() == 63 && apart.elements() > 16384);
static_assert(apart[0].axes == 3 && apart[1].axes == 2);
static_assert(one(plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>({32, 32}, {1 << 20, 1 << 20}), all_to_all,
                  3));
// Ranks that read each other's memory send no messages.
static_assert(one(plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>({32, 32}, {4096, 4096},
                                                                            {.cost = shared_memory_cost}),
                  all_to_all, 3));

// Reductions that differ cannot be one collective: those of a later axis come first. (No tensor type has such placements.)
constexpr RedistributePlan mixed(const detail::PlacementList<2>& from, const detail::PlacementList<2>& to) {
  const Shape<2> mesh{2, 3};
  return detail::plan({from.data(), to.data(), mesh.data(), 2}, nullptr, {});
}
constexpr detail::PlacementValue r = detail::replicate_value();
constexpr detail::PlacementValue s0 = detail::shard_value(0);
constexpr detail::PlacementValue sum = detail::partial_value();
constexpr detail::PlacementValue max = detail::partial_value(ReduceOp::max);
constexpr detail::PlacementValue avg = detail::partial_value(ReduceOp::avg);
constexpr auto ordered = mixed({max, sum}, {r, s0});
static_assert(ordered.size() == 2 && !ordered.axis_by_axis);
static_assert(ordered[0].axes == 2 && ordered[0].op == ReduceOp::sum && ordered[0].collective == reduce_scatter);
static_assert(ordered[1].axes == 1 && ordered[1].op == ReduceOp::max && ordered[1].collective == all_reduce);
static_assert(mixed({avg, sum}, {r, s0}).size() == 1);  // RD-54

}  // namespace
