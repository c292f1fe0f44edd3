// Laws of moves on one axis, over all pairs of placements, sizes and rank counts, against a brute-force oracle.
#include <doctest/doctest.h>

#include <complex>

#include <shardwise/backends/thread.hpp>
#include <shardwise/redistribute/redistribute.hpp>

#include "redistribute/oracle.hpp"
#include "support/slow_build.hpp"
#include "support/tuples.hpp"

using namespace shardwise;
using namespace test;

namespace {

const std::int64_t extents[] = {0, 1, 2, 3, 5, 7, 8, 64};
const int worlds[] = {1, 2, 3, 4, 7};

PlacementValue R() { return detail::replicate_value(); }
PlacementValue S(int d) { return detail::shard_value(d); }
PlacementValue P(ReduceOp op = ReduceOp::sum) { return detail::partial_value(op); }

const PlacementValue sources[] = {
    R(), S(0), S(1), P(), P(ReduceOp::avg), P(ReduceOp::product), P(ReduceOp::max), P(ReduceOp::min)};
const PlacementValue targets[] = {R(), S(0), S(1), P()};

}  // namespace

TEST_CASE("every move on one axis gives what the oracle says, for every size and number of ranks") {
  for (const int n : worlds) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      std::int64_t salt = 0;
      for (const std::int64_t rows : extents)
        for (const std::int64_t columns : extents)
          for (const PlacementValue& from : sources)
            for (const PlacementValue& target : targets) {
              const PlacementValue to = target.is_partial() && from.is_partial() ? from : target;
              const Case c{{n}, {rows, columns}, {from}, {to}, salt++ % 1000};
              if (rows * columns > 200 && salt % 7 != 0) continue;
              check<double>(mesh, c, failures);
            }
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("every move on one axis is the same for every element type") {
  const std::int64_t few[] = {0, 1, 5, 8};
  for (const int n : {3, 4}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      for (const std::int64_t rows : few)
        for (const std::int64_t columns : few)
          for (const PlacementValue& from : sources)
            for (const PlacementValue& target : targets) {
              const Case c{{n}, {rows, columns}, {from}, {target.is_partial() && from.is_partial() ? from : target}, 3};
              check<float>(mesh, c, failures);
              check<bfloat16>(mesh, c, failures);
              check<std::int64_t>(mesh, c, failures);
              if (!from.is_partial() || from.op == ReduceOp::sum || from.op == ReduceOp::avg)
                check<std::complex<float>>(mesh, c, failures);
            }
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("large tensors go straight from peer memory and give the same") {
  // The oracle visits each element of each rank: minutes under a sanitizer.
  const std::vector<int> sizes = test::optimised && !test::slow_build ? std::vector{2, 4, 7} : std::vector{4};
  for (const int n : sizes) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      for (const PlacementValue& from : sources)
        for (const PlacementValue& target : targets) {
          const PlacementValue to = target.is_partial() && from.is_partial() ? from : target;
          check<double>(mesh, {{n}, {131, 257}, {from}, {to}, 1}, failures);
          check<float>(mesh, {{n}, {3, 40000}, {from}, {to}, 2}, failures);
          check<float>(mesh, {{n}, {40000, 3}, {from}, {to}, 2}, failures);
        }
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("two moves in a row are the direct move") {
  for (const int n : {1, 3, 4}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      for (const Index& global : {Index{5, 7}, Index{8, 3}, Index{2, 0}, Index{1, 64}})
        for (const PlacementValue& from : {R(), S(0), S(1), P(), P(ReduceOp::max)})
          for (const PlacementValue& over : {R(), S(0), S(1)})
            for (const PlacementValue& to : {R(), S(0), S(1)}) {
              const Case c{{n}, global, {from}, {to}, 5};
              const auto in = elements<double>(source(c, coordinate_of(mesh)));
              const auto direct = moved(mesh, c.from, c.to, global, in);
              if (moved(mesh, {over}, c.to, global, moved(mesh, c.from, {over}, global, in)) != direct)
                failures.add(text(c) + " over " + to_string(over));
            }
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

namespace {

// The inner product of a value and its gradient on this rank: what all ranks hold alike counts on the first.
double inner(const Index& me, const PlacementVector& value, const PlacementVector& gradient,
             const std::vector<double>& x, const std::vector<double>& g) {
  for (std::size_t a = 0; a < me.size(); ++a)
    if (value[a].is_replicate() && gradient[a].is_replicate() && me[a] != 0) return 0;
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * g[i];
  return sum;
}

}  // namespace

namespace {

struct Sum {
  std::string what;
  double forward = 0, backward = 0;
};

// <move(x), g> == <x, backward(g)> for all pairs of placements, shapes and sets of axes that g is pending on.
template <Name... Axes, std::size_t N>
void adjoint(const std::int64_t (&shape)[N], const std::vector<Index>& globals) {
  std::vector<Sum> sums;
  std::mutex mutex;
  int ranks = 1;
  for (const std::int64_t n : shape) ranks *= static_cast<int>(n);
  run_ranks(ranks, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<Axes...>(world, shape);
    const Index me = coordinate_of(mesh);
    const Index sizes(std::begin(shape), std::end(shape));
    std::vector<std::pair<double, double>> mine;
    std::vector<std::string> what;
    for (const Index& global : globals)
      for (const PlacementVector& from : lists({R(), S(0), S(1), P()}, N))
        for (const PlacementVector& to : lists({R(), S(0), S(1), P()}, N))
          for (std::uint32_t pending = 0; pending < 1u << N; ++pending) {
            bool possible = true;  // only a replicated value has pending gradients
            for (std::size_t a = 0; a < N; ++a)
              if ((pending >> a & 1u) != 0 && !to[a].is_replicate()) possible = false;
            if (!possible) continue;
            const Case c{sizes, global, from, to, 11};
            const auto have = detail::arrived(list_of<N>(to), pending);
            const auto want = detail::needed(list_of<N>(from), list_of<N>(to), have);
            const PlacementVector arrived(have.begin(), have.end()), needed(want.begin(), want.end());
            const auto x = source(c, me);
            const auto y = moved(mesh, from, to, global, x);
            const auto g = source({sizes, global, arrived, arrived, 23}, me);
            const auto back = moved(mesh, arrived, needed, global, g);
            mine.emplace_back(inner(me, to, arrived, y, g), inner(me, from, needed, x, back));
            if (world.rank() == 0) what.push_back(text(c) + " pending " + std::to_string(pending));
          }
    const std::lock_guard lock(mutex);
    sums.resize(mine.size());
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (world.rank() == 0) sums[i].what = what[i];
      sums[i].forward += mine[i].first;
      sums[i].backward += mine[i].second;
    }
  });
  CHECK(sums.size() > 0);
  for (const Sum& s : sums) {
    if (s.forward == s.backward) continue;
    INFO(s.what);
    CHECK(s.forward == s.backward);
  }
}

}  // namespace

TEST_CASE("the backward of a move is its adjoint, for complete and for pending gradients") {
  std::vector<Index> globals;
  for (const std::int64_t rows : extents)
    for (const std::int64_t columns : {1, 3, 8}) globals.push_back({rows, columns});
  for (const int n : worlds) adjoint<"tp">({n}, globals);
}

TEST_CASE("the backward of a move over several axes is its adjoint, for all pairs and all pending gradients") {
  adjoint<"dp", "tp">({2, 2}, {{5, 3}, {4, 8}, {1, 2}});
  adjoint<"dp", "tp">({2, 3}, {{7, 4}});
  adjoint<"dp", "tp">({3, 1}, {{4, 5}});
  adjoint<"pp", "dp", "tp">({2, 1, 2}, {{3, 5}});
}
