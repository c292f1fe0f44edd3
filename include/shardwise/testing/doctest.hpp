// SHARDWISE_TEST_RANKS: a doctest case whose body runs once per rank, with the rank's communicator in scope as
// `world`. `shardwise::doctest` brings main. Layer: testing.
#pragma once

#include <doctest/doctest.h>

#include <shardwise/backends/thread.hpp>

namespace shardwise::testing {

/// The communicator that a test body gets as `world`.
using World = ThreadCommunicator;

// A failing assertion names its rank.
inline void run_test(int ranks, void (*body)(World)) {
  run_ranks(ranks, [body](World world) {
    INFO("rank ", world.rank(), " of ", world.size());
    body(world);
  });
}

}  // namespace shardwise::testing

/// `SHARDWISE_TEST_RANKS("name", 4) { ... world ... }`: the body runs on 4 ranks; the first failure or exception of any
/// of them fails the case. No SUBCASE inside: doctest's are not for threads.
#define SHARDWISE_TEST_RANKS(name, ranks) SHARDWISE_TEST_RANKS_AS(DOCTEST_ANONYMOUS(shardwise_test_ranks_), name, ranks)
#define SHARDWISE_TEST_RANKS_AS(body, name, ranks)                          \
  static void body(::shardwise::testing::World world);                      \
  DOCTEST_TEST_CASE(name) { ::shardwise::testing::run_test(ranks, &body); } \
  static void body([[maybe_unused]] ::shardwise::testing::World world)
