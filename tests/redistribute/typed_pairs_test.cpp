// The typed front: every pair of placements on one and on two axes, and some beyond, against the oracle.
#include <doctest/doctest.h>

#include <shardwise/backends/thread.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/plan_redistribute.hpp>

#include "redistribute/oracle.hpp"

using namespace shardwise;
using namespace test;

namespace {

using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;
using P = Partial<>;

Tensor<double, 2> local_part(const Case& c, const Index& me) {
  const auto lists = held(c.from, c.mesh, me, c.global);
  Tensor<double, 2> part(
      Shape<2>{static_cast<std::int64_t>(lists[0].size()), static_cast<std::int64_t>(lists[1].size())});
  const auto values = source(c, me);
  std::copy(values.begin(), values.end(), part.data());
  return part;
}

void compare(const Case& c, const Index& me, const double* out, std::int64_t size, const Counter& counter,
             Failures& failures) {
  const auto right = elements<double>(expected(c, me));
  if (!std::equal(right.begin(), right.end(), out, out + size)) failures.add(text(c));
  const detail::Extents global = extents_of(c.global);
  const RedistributePlan plan =
      detail::plan({c.from.data(), c.to.data(), c.mesh.data(), static_cast<int>(c.mesh.size())}, &global,
                   {.cost = shared_memory_cost});
  if (counter.total != plan.collectives() || plan.collectives() > 1) failures.add("collectives of " + text(c));
  if (counter.bytes > plan.elements() * 8) failures.add("more received than planned: " + text(c));
}

// A rank brings in its part, moves, and compares. As little as can be is compiled for each pair.
template <class To>
struct Move;
template <class... To>
struct Move<Placements<To...>> {
  template <class X>
  static void check(const X& x, Case c, const Index& me, Failures& failures) {
    c.to = {placement_value<To>...};
    const Counter counter;
    const auto y = redistribute<To...>(x);
    static_assert(decltype(y)::placements == detail::PlacementList<sizeof...(To)>{placement_value<To>...});
    compare(c, me, y.data(), y.size(), counter, failures);
  }
};
template <class From>
struct Source;
template <class... From>
struct Source<Placements<From...>> {
  template <class Mesh, class... To>
  static void check(const Mesh& mesh, const Shape<2>& global, Failures& failures) {
    const Case c{Index(mesh.shape().begin(), mesh.shape().end()),
                 Index(global.begin(), global.end()),
                 {placement_value<From>...},
                 {},
                 5};
    const Index me = coordinate_of(mesh);
    const auto x = from_local<From...>(local_part(c, me), mesh, {.global_shape = global});
    (Move<To>::check(x, c, me, failures), ...);
  }
};

template <class... L>
struct Lists {};

template <class Mesh, class... From, class... To>
void each_to_each(const Mesh& mesh, const Shape<2>& global, Failures& failures, Lists<From...>, Lists<To...>) {
  (Source<From>::template check<Mesh, To...>(mesh, global, failures), ...);
}
template <class From, class To, class Mesh>
void one_to_one(const Mesh& mesh, Failures& failures) {
  Source<From>::template check<Mesh, To>(mesh, {9, 5}, failures);
}

template <class A, class... B>
Lists<Placements<A, B>...> before(Lists<B...>);
template <class... A, class... B, class... C, class... D>
Lists<A..., B..., C..., D...> joined(Lists<A...>, Lists<B...>, Lists<C...>, Lists<D...>);

using Single = Lists<Placements<R>, Placements<S0>, Placements<S1>, Placements<P>>;
using Four = Lists<R, S0, S1, P>;
using Double = decltype(joined(before<R>(Four()), before<S0>(Four()), before<S1>(Four()), before<P>(Four())));

}  // namespace

TEST_CASE("every pair of placement types on one axis") {
  for (const int ranks : {1, 3, 4}) {
    Failures failures;
    run_ranks(ranks, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"a">(world, {ranks});
      for (const Shape<2>& global : {Shape<2>{5, 7}, Shape<2>{2, 8}})
        each_to_each(mesh, global, failures, Single(), Single());
    });
    INFO(failures.all());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("every pair of placement types on two axes") {
  Failures failures;
  run_ranks(4, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"a", "b">(world, {2, 2});
    for (const Shape<2>& global : {Shape<2>{5, 7}, Shape<2>{1, 4}})
      each_to_each(mesh, global, failures, Double(), Double());
  });
  INFO(failures.all());
  CHECK(failures.count() == 0);
}

TEST_CASE("pairs of placement types on three and four axes") {
  Failures failures;
  run_ranks(8, [&](ThreadCommunicator world) {
    const auto cube = init_device_mesh<"a", "b", "c">(world, {2, 2, 2});
    one_to_one<Placements<S0, S0, S0>, Placements<S1, S1, S1>>(cube, failures);
    one_to_one<Placements<S0, S1, S0>, Placements<S1, S0, S0>>(cube, failures);
    one_to_one<Placements<P, P, S0>, Placements<S0, S0, S0>>(cube, failures);
    one_to_one<Placements<P, S0, P>, Placements<R, R, R>>(cube, failures);
    one_to_one<Placements<P, P, P>, Placements<S0, S0, S1>>(cube, failures);
    const auto four = init_device_mesh<"a", "b", "c", "d">(world, {2, 1, 2, 2});
    one_to_one<Placements<S0, S1, S0, S1>, Placements<S1, S0, S1, S0>>(four, failures);
    one_to_one<Placements<P, R, S1, P>, Placements<S1, S0, R, S0>>(four, failures);
    one_to_one<Placements<S0, P, P, R>, Placements<R, R, P, S1>>(four, failures);
  });
  INFO(failures.all());
  CHECK(failures.count() == 0);
}

TEST_CASE("reductions of other kinds on other axes are done one after the other") {
  // Over values alone: a maximum, along the first axis, of sums along the second.
  Failures failures;
  run_ranks(6, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"a", "b">(world, {2, 3});
    const detail::PlacementValue sum = detail::partial_value();
    const detail::PlacementValue max = detail::partial_value(ReduceOp::max);
    const Index me = coordinate_of(mesh);
    for (const PlacementVector& to : {PlacementVector{detail::replicate_value(), detail::shard_value(0)},
                                      PlacementVector{detail::shard_value(0), detail::shard_value(0)}}) {
      const auto from = list_of<2>({max, sum}), target = list_of<2>(to);
      const auto value = [](const Index& at, std::int64_t i) {
        return static_cast<double>((i * 5 + at[0] * 7 + at[1] * 3 + i * at[0] * at[1]) % 11);
      };
      std::vector<double> in(7);
      for (std::int64_t i = 0; i < 7; ++i) in[static_cast<std::size_t>(i)] = value(me, i);
      const detail::Extents global = extents_of({7});
      const RedistributePlan plan =
          detail::plan({from.data(), target.data(), mesh.shape().data(), 2}, &global, {.cost = shared_memory_cost});
      const Index mine = held(to, {2, 3}, me, {7})[0];
      std::vector<double> out(mine.size(), -1);
      detail::execute_plan(mesh, plan, global, DType::float64, in.data(), out.data());
      std::vector<double> right;
      for (const std::int64_t i : mine) {
        double sums[2] = {};
        for (std::int64_t a = 0; a < 2; ++a)
          for (std::int64_t b = 0; b < 3; ++b) sums[a] += value({a, b}, i);
        right.push_back(sums[0] > sums[1] ? sums[0] : sums[1]);
      }
      if (out != right) failures.add(text(to) + " at " + text(me));
      if (plan.size() != 2) failures.add("not two steps");
    }
  });
  INFO(failures.all());
  CHECK(failures.count() == 0);
}
