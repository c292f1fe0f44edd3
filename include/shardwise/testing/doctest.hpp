// SHARDWISE_TEST_RANKS: a doctest case whose body runs once per rank, with the rank's communicator in scope as
// `world`. `shardwise::doctest` brings main. Layer: testing.
#pragma once

#include <doctest/doctest.h>

#include <shardwise/backends/thread.hpp>
#if defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
#include <shardwise/testing/processes.hpp>
#endif

namespace shardwise::testing {

#if defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
/// The communicator that a test body gets as `world`.
using World = AnyCommunicator;
#else
/// The communicator that a test body gets as `world`.
using World = ThreadCommunicator;
#endif

// A failing assertion names its rank.
inline void run_test(int ranks, void (*body)(World)) {
#if defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
  if (run_on_processes(ranks, body)) return;
#endif
  run_ranks(ranks, [body](ThreadCommunicator threads) {
    const World world(threads);
    INFO("rank ", world.rank(), " of ", world.size());
    body(world);
  });
}

}  // namespace shardwise::testing

/// `SHARDWISE_TEST_RANKS("name", 4) { ... world ... }`: the body runs on 4 ranks; the first failure or exception of any
/// of them fails the case. No SUBCASE inside: doctest's are not for threads.
/// Ranks are threads; or, in a program that links shardwise::gloo and is launched as several processes, these: a case that
/// wants fewer of them runs on the first, one that wants more is left out and says so.
#define SHARDWISE_TEST_RANKS(name, ranks) SHARDWISE_TEST_RANKS_AS(DOCTEST_ANONYMOUS(shardwise_test_ranks_), name, ranks)
#define SHARDWISE_TEST_RANKS_AS(body, name, ranks)                          \
  static void body(::shardwise::testing::World world);                      \
  DOCTEST_TEST_CASE(name) { ::shardwise::testing::run_test(ranks, &body); } \
  static void body([[maybe_unused]] ::shardwise::testing::World world)
