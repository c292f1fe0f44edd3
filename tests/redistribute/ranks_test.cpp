// Laws and random moves as laws_test.cpp and random_test.cpp have them over threads, fewer, over ranks of any kind: threads here,
// processes where the suite `ranks` is launched as several.
#include <shardwise/testing/doctest.hpp>

#include <complex>
#include <string>
#include <vector>

#include <shardwise/redistribute/redistribute.hpp>

#include "redistribute/oracle.hpp"
#include "redistribute/random_case.hpp"

using namespace shardwise;
using namespace test;
using shardwise::testing::World;

namespace {

const PlacementValue sources[] = {
    detail::replicate_value(),
    detail::shard_value(0),
    detail::shard_value(1),
    detail::partial_value(ReduceOp::sum),
    detail::partial_value(ReduceOp::avg),
    detail::partial_value(ReduceOp::max),
};
const PlacementValue targets[] = {detail::replicate_value(), detail::shard_value(0), detail::shard_value(1),
                                  detail::partial_value()};

// Every pair on all ranks.
void laws(const World& world, const std::vector<Index>& globals) {
  const auto mesh = init_device_mesh<"tp">(world, {world.size()});
  Failures failures;
  std::int64_t salt = 0;
  for (const Index& global : globals)
    for (const PlacementValue& from : sources)
      for (const PlacementValue& target : targets) {
        const Case c{
            {world.size()}, global, {from}, {target.is_partial() && from.is_partial() ? from : target}, salt++};
        check<float>(mesh, c, failures);
        if (global[0] > 100) continue;
        check<std::int64_t>(mesh, c, failures);
        check<bfloat16>(mesh, c, failures);
      }
  INFO(failures.first());
  CHECK(failures.count() == 0);
}

// Moves `count` random cases; a failure names its seed.
template <Name... Axes, std::size_t N>
void random_moves(const World& world, const std::int64_t (&shape)[N], int count) {
  const auto mesh = init_device_mesh<Axes...>(world, shape);
  const Index me = coordinate_of(mesh);
  Failures failures;
  const auto compare = [&]<class T>(const Case& c, std::uint64_t seed) {
    if (moved<T>(mesh, c.from, c.to, c.global, elements<T>(source(c, me))) != elements<T>(expected(c, me)))
      failures.add("seed " + std::to_string(seed) + ": " + text(c) + " at " + text(me));
  };
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(count); ++seed) {
    SplitMix random{seed * 4096 + N};
    const bool ordered = random.below(8) != 0;
    const Case c = random_case(random, Index(mesh.shape().begin(), mesh.shape().end()), ordered);
    if (ordered)
      compare.template operator()<double>(c, seed);
    else
      compare.template operator()<std::complex<float>>(c, seed);
  }
  INFO(failures.count(), " failures\n", failures.all());
  CHECK(failures.count() == 0);
}

}  // namespace

SHARDWISE_TEST_RANKS("every move on one axis gives what the oracle says: two ranks", 2) {
  laws(world, {{0, 3}, {1, 1}, {5, 7}, {8, 3}});
}
SHARDWISE_TEST_RANKS("every move on one axis gives what the oracle says: three ranks", 3) {
  laws(world, {{0, 3}, {2, 2}, {5, 7}, {10, 11}});
}
SHARDWISE_TEST_RANKS("every move on one axis gives what the oracle says: four ranks, sizes to beyond what is staged",
                     4) {
  laws(world, {{0, 3}, {1, 1}, {5, 7}, {64, 3}, {131, 257}});
}

SHARDWISE_TEST_RANKS("random moves on one to four axes give what the oracle says", 4) {
  random_moves<"a">(world, {4}, 400);
  random_moves<"a", "b">(world, {2, 2}, 800);
  random_moves<"a", "b", "c">(world, {2, 1, 2}, 200);
  random_moves<"a", "b", "c", "d">(world, {1, 2, 1, 2}, 200);
}
