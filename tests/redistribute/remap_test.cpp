// Moves to another mesh: the same ranks in another order or shape, some, more or others of the world, against a brute-force
// oracle that also counts what must cross.
#include <shardwise/core.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/testing/doctest.hpp>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "redistribute/oracle.hpp"
#include "redistribute/two_meshes.hpp"
#include "redistribute/values.hpp"
#include "support/slow_build.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <class A, class B>
void check_move(const ThreadCommunicator& world, const A& a, const B& b, const Plan& from, const Plan& to,
                const Index& global, std::int64_t salt, Failures& failures) {
  std::vector<double> in;
  if (from.find(world.rank()) >= 0)
    in = source(Case{from.shape, global, from.placements, from.placements, salt},
                from.coordinate(from.find(world.rank())));
  std::int64_t moving = 0;
  for (int r = 0; r < world.size(); ++r) moving += expected_on(r, from, to, global, salt).received;
  const Expected e = expected_on(world.rank(), from, to, global, salt);
  std::vector<double> out(e.values.size() + 1, 99);
  const Counter counter;
  detail::execute_across(a, list_of<A::ndim>(from.placements), b, list_of<B::ndim>(to.placements), extents_of(global),
                         DType::float64, in.data(), out.data());
  const bool bounded = out.back() == 99;
  out.pop_back();
  const auto where = [&] {
    return text(global) + " " + text(from) + " -> " + text(to) + " at " + std::to_string(world.rank());
  };
  if (out != e.values || !bounded) failures.add(where());
  if (counter.bytes != 8 * e.received) failures.add("bytes " + std::to_string(counter.bytes) + ": " + where());
  if (counter.total > (moving > 0 ? 1 : 0)) failures.add("collectives: " + where());
}

}  // namespace

TEST_CASE("random moves between random meshes of one world give what the oracle says, and no byte more crosses") {
  for (const int n : {1, 3, 6}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      Random random{static_cast<std::uint64_t>(n) * 2654435761u + 88172645463325252u};
      for (int i = 0; i < (test::slow_build ? 120 : 500); ++i) {
        const std::int64_t rank = random.below(12) == 0 ? 0 : 1 + random.below(2);
        Index global;
        for (std::int64_t d = 0; d < rank; ++d) global.push_back(random.below(10));
        const Plan a = random_plan(random, n, 1, rank, true), b = random_plan(random, n, 1, rank, false);
        const Plan c = random_plan(random, n, 2, rank, true), d = random_plan(random, n, 2, rank, false);
        const auto ma = make<"x">(world, a);
        const auto mb = make<"x">(world, b);
        const auto mc = make<"x", "y">(world, c);
        const auto md = make<"x", "y">(world, d);
        check_move(world, ma, mb, a, b, global, i, failures);
        check_move(world, ma, md, a, d, global, i, failures);
        check_move(world, mc, mb, c, b, global, i, failures);
        check_move(world, mc, md, c, d, global, i, failures);
      }
    });
    INFO(failures.count(), " failures, the first: ", failures.first());
    CHECK(failures.count() == 0);
  }
}

SHARDWISE_TEST_RANKS("the same ranks in another shape with the same parts: the elements are shared, nobody meets", 6) {
  const auto line = init_device_mesh<"r">(world, {6});
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 3});
  const auto x = distribute_tensor<Shard<0>>(counting<float>({12, 2}), line);
  const Counter counter;
  const auto y = redistribute<Shard<0>, Shard<0>>(x, grid);
  CHECK(counter.total == 0);
  CHECK(y.data() == x.data());
  CHECK(y.local_offset() == x.local_offset());
  CHECK(y.shape() == x.shape());
  const auto back = redistribute<Shard<0>>(y, line);
  CHECK(back.data() == x.data());
  CHECK(counter.total == 0);
}

SHARDWISE_TEST_RANKS("a replicated tensor is cut on any mesh over the same ranks without communication", 4) {
  const auto line = init_device_mesh<"r">(world, {4});
  const auto turned = init_device_mesh<"r">(world, {4}, {.ranks = {3, 1, 0, 2}});
  const auto whole = counting<float>({7, 2});
  const auto x = distribute_tensor<Replicate>(whole, line);
  const Counter counter;
  const auto y = redistribute<Shard<0>>(x, turned);
  CHECK(counter.total == 0);
  CHECK(equal(y.to_local(), distribute_tensor<Shard<0>>(whole, turned, {.src_data_rank = no_source}).to_local()));
}

SHARDWISE_TEST_RANKS("another order of the ranks: only what changes hands crosses", 4) {
  const auto line = init_device_mesh<"r">(world, {4});
  const auto swapped = init_device_mesh<"r">(world, {4}, {.ranks = {0, 1, 3, 2}});
  const auto x = distribute_tensor<Shard<0>>(counting<float>({8, 3}), line);
  const Counter counter;
  const auto y = redistribute<Shard<0>>(x, swapped);
  CHECK(counter.total == 1);
  CHECK(counter.bytes == (world.rank() < 2 ? 0 : 2 * 3 * 4));
  CHECK(equal(y.full_tensor(), counting<float>({8, 3})));
}

SHARDWISE_TEST_RANKS("other ranks of the world: the gradient goes back, outsiders hold nothing and none waits", 5) {
  const auto first = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
  const auto second = init_device_mesh<"b">(world, {2}, {.ranks = {4, 2}});
  const auto whole = counting<float>({5, 3});
  auto x = distribute_tensor<Shard<0>>(whole, first);
  x.requires_grad(true);
  const auto y = redistribute<BlockCyclic<1, 1>>(x, second);
  CHECK(y.shape() == Shape<2>{5, 3});
  CHECK(y.requires_grad());
  if (second.is_member()) {
    CHECK(equal(y.to_local(),
                distribute_tensor<BlockCyclic<1, 1>>(whole, second, {.src_data_rank = no_source}).to_local()));
  } else {
    CHECK(y.size() == 0);
  }
  const auto z = redistribute<Shard<0>>(y, first);
  if (first.is_member()) CHECK(equal(z.to_local(), x.to_local()));
  const Counter counter;
  backward(sum(y * y));
  CHECK(counter.total <= 1);
  if (first.is_member()) {
    CHECK(counter.bytes == x.size() * 4);
    for (std::int64_t i = 0; i < x.size(); ++i) CHECK(x.grad().data()[i] == 2 * x.data()[i]);
  }
}

SHARDWISE_TEST_RANKS("a pending sum is settled on the way to another mesh, and a pending gradient on the way back", 4) {
  const auto line = init_device_mesh<"r">(world, {4});
  const auto half = init_device_mesh<"h">(world, {2}, {.ranks = {2, 1}});
  const auto term = counting<float>({6, 2});
  auto local = detach(term);
  local.requires_grad(true);
  const auto p = from_local<Partial<Avg>>(local, line);
  const auto y = redistribute<Replicate>(p, half);
  if (half.is_member()) CHECK(equal(y.to_local(), term));
  backward(to_local<Partial<>>(y), full<float>({half.is_member() ? 6 : 0, half.is_member() ? 2 : 0}, 1.0f));
  CHECK(all_are(local.grad(), 0.5));  // two ranks used it, a quarter of each term
}

SHARDWISE_TEST_RANKS("meshes of different communicators are refused", 2) {
  const auto part = world.split(0, world.rank());
  const auto a = init_device_mesh<"r">(world, {2});
  const auto b = init_device_mesh<"r">(*part, {2});
  const auto x = distribute_tensor<Shard<0>>(counting<float>({2, 2}), a);
  CHECK(contains(thrown<Error>([&] { (void)redistribute<Shard<0>>(x, b); }), "made of different communicators"));
}

SHARDWISE_TEST_RANKS("redistribute_into writes into memory on another mesh: other ranks, another order, the same parts",
                     5) {
  const auto first = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
  const auto second = init_device_mesh<"b", "c">(world, {2, 2}, {.ranks = {4, 2, 1, 3}});
  const auto whole = counting<float>({6, 5});
  const auto x = distribute_tensor<Shard<0>>(whole, first);
  auto y = zeros<float, Shard<1>, Replicate>(second, {6, 5});
  const float* const memory = y.data();
  redistribute_into(x, y);
  redistribute_into(x, y);
  CHECK(y.data() == memory);
  if (second.is_member())
    CHECK(equal(y.to_local(),
                distribute_tensor<Shard<1>, Replicate>(whole, second, {.src_data_rank = no_source}).to_local()));
  auto back = zeros<float, Shard<0>>(first, {6, 5});
  redistribute_into(y, back);
  CHECK(equal(back.to_local(), x.to_local()));

  // The type of the mesh is the same, the mesh is not.
  const auto line = init_device_mesh<"r">(world, {5});
  const auto turned = init_device_mesh<"r">(world, {5}, {.ranks = {4, 3, 2, 1, 0}});
  const auto a = distribute_tensor<Shard<0>>(whole, line);
  auto b = zeros<float, Shard<0>>(turned, {6, 5});
  redistribute_into(a, b);
  CHECK(equal(b.to_local(), distribute_tensor<Shard<0>>(whole, turned, {.src_data_rank = no_source}).to_local()));
}

SHARDWISE_TEST_RANKS("redistribute_into on another mesh settles a pending sum, and refuses what it cannot do", 4) {
  const auto line = init_device_mesh<"r">(world, {4});
  const auto turned = init_device_mesh<"r">(world, {4}, {.ranks = {3, 1, 2, 0}});
  const auto half = init_device_mesh<"h">(world, {2}, {.ranks = {3, 1}});
  auto local = counting<float>({5, 2});
  auto term = from_local<Partial<>>(local, line);
  auto sum = zeros<float, Shard<0>>(half, {5, 2});
  redistribute_into(term, sum);
  for (std::int64_t i = 0; i < sum.size(); ++i)
    CHECK(sum.data()[i] == 4.0f * static_cast<float>(2 * sum.local_offset()[0] + i + 1));

  auto pending = from_local<Partial<>>(detach(local), turned);
  CHECK(contains(thrown<Error>([&] { redistribute_into(term, pending); }), "a pending reduction stays on its mesh"));
  auto other = zeros<float, Shard<0>>(half, {2, 5});
  CHECK(contains(thrown<ShapeError>([&] { redistribute_into(term, other); }), "[2, 5]"));

  auto x = distribute_tensor<Shard<0>>(counting<float>({8}), line);
  const auto grid = init_device_mesh<"p", "q">(world, {2, 2});
  auto same = redistribute<Shard<0>, Shard<0>>(x, grid);
  REQUIRE(same.data() == x.data());
  const Counter counter;
  redistribute_into(x, same);  // it is there
  CHECK(counter.total == 0);
  auto elsewhere = from_local<Shard<0>>(x.to_local(), turned);
  CHECK(contains(thrown<Error>([&] { redistribute_into(x, elsewhere); }), "shares its elements with the input"));
  x.requires_grad(true);
  auto eight = zeros<float, Shard<0>>(half, {8});
  CHECK(contains(thrown<Error>([&] { redistribute_into(x, eight); }), "a gradient would have to be recorded"));
  const NoGrad guard;
  redistribute_into(x, eight);
  for (std::int64_t i = 0; i < eight.size(); ++i)
    CHECK(eight.data()[i] == static_cast<float>(eight.local_offset()[0] + i + 1));
}

namespace {

// What this rank has of an inner product of a value and its gradient: what ranks hold alike counts on the first.
double inner(const Plan& plan, int rank, std::uint32_t pending, const std::vector<double>& x, const double* g) {
  if (plan.find(rank) < 0) return 0;
  const Index me = plan.coordinate(plan.find(rank));
  for (std::size_t a = 0; a < me.size(); ++a)
    if (plan.placements[a].is_replicate() && (pending >> a & 1u) == 0 && me[a] != 0) return 0;
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * g[i];
  return sum;
}

// <move(x), g> and <x, backward(g)> of this rank.
template <class A, class B>
std::pair<double, double> products(const ThreadCommunicator& world, const A& a, const B& b, const Plan& from,
                                   const Plan& to, const Index& global, std::uint32_t pending) {
  const int me = world.rank();
  const auto values = [&](const Plan& plan, std::int64_t salt) {
    if (plan.find(me) < 0) return std::vector<double>();
    return source(Case{plan.shape, global, plan.placements, plan.placements, salt}, plan.coordinate(plan.find(me)));
  };
  const std::vector<double> x = values(from, 3);
  const std::vector<double> y = expected_on(me, from, to, global, 3).values;
  Plan gradient = to;
  for (std::size_t axis = 0; axis < to.shape.size(); ++axis)
    if ((pending >> axis & 1u) != 0) gradient.placements[axis] = detail::partial_value();
  const std::vector<double> g = values(gradient, 8);
  detail::OtherMeshNode<A, B> node(a, list_of<A::ndim>(from.placements), b, list_of<B::ndim>(to.placements),
                                   extents_of(global));
  const auto slot = detail::make_slot(DType::float64, static_cast<std::int64_t>(x.size()), false, 0);
  node.inputs.push_back(slot);
  detail::GradSlot arrived;
  arrived.dtype = DType::float64;
  arrived.count = static_cast<std::int64_t>(g.size());
  arrived.pending = pending;
  arrived.grad = detail::Buffer::view(const_cast<double*>(g.data()));
  node.backward(arrived);
  return {inner(to, me, pending, y, g.data()), inner(from, me, 0, x, slot->grad.as<double>())};
}

}  // namespace

TEST_CASE("the backward of a move between random meshes is its adjoint, pending gradients too") {
  constexpr int ranks = 6;
  std::vector<double> forward, backward;
  std::vector<std::string> what;
  std::mutex mutex;
  run_ranks(ranks, [&](ThreadCommunicator world) {
    Random random{4242};
    std::vector<std::pair<double, double>> mine;
    const auto check = [&](const auto& a, const auto& b, const Plan& from, const Plan& to, const Index& global) {
      for (std::uint32_t pending = 0; pending < 1u << to.shape.size(); ++pending) {
        bool possible = true;  // only a replicated value has pending gradients
        for (std::size_t axis = 0; axis < to.shape.size(); ++axis)
          possible = possible && ((pending >> axis & 1u) == 0 || to.placements[axis].is_replicate());
        if (!possible) continue;
        mine.push_back(products(world, a, b, from, to, global, pending));
        if (world.rank() == 0)
          what.push_back(text(global) + " " + text(from) + " -> " + text(to) + " pending " + std::to_string(pending));
      }
    };
    for (int i = 0; i < 200; ++i) {
      const std::int64_t rank = random.below(12) == 0 ? 0 : 1 + random.below(2);
      Index global;
      for (std::int64_t d = 0; d < rank; ++d) global.push_back(random.below(8));
      const Plan a = random_plan(random, ranks, 1, rank, true), b = random_plan(random, ranks, 1, rank, false);
      const Plan c = random_plan(random, ranks, 2, rank, true), d = random_plan(random, ranks, 2, rank, false);
      const auto ma = make<"x">(world, a);
      const auto mb = make<"x">(world, b);
      const auto mc = make<"x", "y">(world, c);
      const auto md = make<"x", "y">(world, d);
      check(ma, mb, a, b, global);
      check(ma, md, a, d, global);
      check(mc, mb, c, b, global);
      check(mc, md, c, d, global);
    }
    const std::lock_guard lock(mutex);
    forward.resize(mine.size());
    backward.resize(mine.size());
    for (std::size_t i = 0; i < mine.size(); ++i) {
      forward[i] += mine[i].first;
      backward[i] += mine[i].second;
    }
  });
  CHECK(forward.size() > 800);
  double largest = 0;
  for (std::size_t i = 0; i < forward.size(); ++i) {
    INFO(what[i]);
    CHECK(forward[i] == doctest::Approx(backward[i]).epsilon(1e-12));
    largest = std::max(largest, std::abs(forward[i]));
  }
  CHECK(largest > 100);
}
