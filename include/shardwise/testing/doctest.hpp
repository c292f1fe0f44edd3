// SHARDWISE_TEST_RANKS: a doctest case whose body runs once per rank, with the rank's communicator in scope as
// `world`. `shardwise::doctest` brings main. Layer: testing.
#pragma once

#include <map>
#include <string>

#include <doctest/doctest.h>

#include <shardwise/backends/thread.hpp>
#if defined(SHARDWISE_TEST_DEVICES)
#include <cstdio>

#include <shardwise/backends/nccl.hpp>
#elif defined(SHARDWISE_TEST_PROCESSES_ELSEWHERE)
#include <shardwise/backends/any/communicator.hpp>
#elif defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
#include <shardwise/testing/processes.hpp>
#endif

namespace shardwise::testing {

#if defined(SHARDWISE_TEST_DEVICES)
/// The communicator that a test body gets as `world`.
using World = NcclCommunicator;
#elif defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI) || defined(SHARDWISE_TEST_PROCESSES_ELSEWHERE)
/// The communicator that a test body gets as `world`.
using World = AnyCommunicator;
#else
/// The communicator that a test body gets as `world`.
using World = ThreadCommunicator;
#endif

#if defined(SHARDWISE_TEST_PROCESSES_ELSEWHERE) && !defined(SHARDWISE_TEST_DEVICES)
// Programs of many units define this macro, and this function as run_on_processes() in one of them, which alone includes
// processes.hpp: it takes longer to compile than most tests.
bool run_on_processes_elsewhere(int ranks, void (*body)(AnyCommunicator));
#endif

// "ranks", or "<suite>/ranks" within one.
inline const char* suite_of_ranks(const char* suite) {
  if (suite == nullptr || *suite == '\0') return "ranks";
  static std::map<std::string, std::string> names;  // doctest keeps the pointers
  return names.try_emplace(suite, std::string(suite) + "/ranks").first->second.c_str();
}

// A failing assertion names its rank.
inline void run_test(int ranks, void (*body)(World)) {
#if defined(SHARDWISE_TEST_DEVICES)
  if (ranks > cuda::device_count()) {
    std::printf("SKIPPED: '%s' wants %d CUDA devices, there are %d\n",
                doctest::getContextOptions()->currentTest->m_name, ranks, cuda::device_count());
    return;
  }
#elif defined(SHARDWISE_TEST_PROCESSES_ELSEWHERE)
  if (run_on_processes_elsewhere(ranks, body)) return;
#elif defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
  if (run_on_processes(ranks, body)) return;
#endif
  run_ranks(ranks, [body](ThreadCommunicator threads) {
    const World world(threads);
    INFO("rank ", world.rank(), " of ", world.size());
    body(world);
#if defined(SHARDWISE_TEST_DEVICES)
    world.synchronize();  // what NCCL finds after the last assertion fails the case too
#endif
  });
}

}  // namespace shardwise::testing

/// `SHARDWISE_TEST_RANKS("name", 4) { ... world ... }`: the body runs on 4 ranks; the first failure or exception of any
/// of them fails the case. No SUBCASE inside: doctest's are not for threads.
/// Ranks are threads; or, in a program that links shardwise::gloo and is launched as several processes, these: a case that
/// wants fewer of them runs on the first, one that wants more is left out and says so.
/// In a unit that defines SHARDWISE_TEST_DEVICES, and links shardwise::nccl, ranks are threads with a GPU each and `world` is a
/// NcclCommunicator; a case that wants more GPUs than there are is left out and says so.
/// The cases are in the test suite `ranks` (`x/ranks` within TEST_SUITE("x")): `-ts='*ranks'` runs them and no others, which
/// would only run several times over processes.
#define SHARDWISE_TEST_RANKS(name, ranks) SHARDWISE_TEST_RANKS_AS(DOCTEST_ANONYMOUS(shardwise_test_ranks_), name, ranks)
#define SHARDWISE_TEST_RANKS_AS(body, name, ranks)                                                               \
  static void body(::shardwise::testing::World world);                                                           \
  DOCTEST_TEST_CASE(name* ::doctest::test_suite(                                                                 \
      ::shardwise::testing::suite_of_ranks(doctest_detail_test_suite_ns::getCurrentTestSuite().m_test_suite))) { \
    ::shardwise::testing::run_test(ranks, &body);                                                                \
  }                                                                                                              \
  static void body([[maybe_unused]] ::shardwise::testing::World world)
