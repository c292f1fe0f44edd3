// Test cases whose ranks are the processes that the test program was launched as. Layer: testing.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <doctest/doctest.h>

#include <shardwise/backends/any.hpp>

namespace shardwise::testing {

inline const detail::LaunchEnvironment& launch_environment() {
  static const detail::LaunchEnvironment environment = detail::read_environment();
  return environment;
}

// Each case gets a world of its own: a failure in one does not poison the next. The processes make them in the same order.
inline std::shared_ptr<detail::ProcessWorld> next_world() {
  static int worlds = 0;
  return detail::join_world_of(launch_environment(), "/" + std::to_string(++worlds));
}

// The body on this process' rank; what it throws is known to the others before it leaves.
inline void run_on_rank(const AnyCommunicator& world, detail::ProcessWorld& all, void (*body)(AnyCommunicator)) {
  INFO("rank ", world.rank(), " of ", world.size(), ", a process");
  try {
    body(world);
  } catch (const std::exception& e) {
    all.fail(e.what());
    throw;
  } catch (...) {  // doctest's REQUIRE
    all.fail("a required assertion failed");
    throw;
  }
}

// False where this program is no rank of several processes.
inline bool run_on_processes(int ranks, void (*body)(AnyCommunicator)) {
  const detail::LaunchEnvironment& environment = launch_environment();
  if (!detail::was_launched(environment)) return false;
  if (ranks > environment.size) {
    if (environment.rank == 0)
      std::printf("SKIPPED: '%s' wants %d ranks, the world has %d processes\n",
                  doctest::getContextOptions()->currentTest->m_name, ranks, environment.size);
    return true;
  }
  const std::shared_ptr<detail::ProcessWorld> world = next_world();
  const ProcessCommunicator all = world->communicator();
  if (ranks == environment.size) {
    run_on_rank(all, *world, body);
  } else if (const auto part = all.split(all.rank() < ranks ? 0 : -1, 0)) {
    run_on_rank(*part, *world, body);
  }
  all.barrier();  // also says whether a rank threw
  return true;
}

// A run fails on every rank where it fails on one.
class AgreeOnResult final : public doctest::IReporter {
 public:
  explicit AgreeOnResult(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    if (!detail::was_launched(launch_environment())) return;
    int failed = static_cast<int>(stats.numTestCasesFailed), anywhere = failed;
    {
      const std::shared_ptr<detail::ProcessWorld> world = next_world();
      world->communicator().all_reduce(std::span<const int>(&failed, 1), std::span<int>(&anywhere, 1), ReduceOp::max);
    }
    if (failed > 0 || anywhere == 0) return;
    std::printf("rank %d: passed here, failed on another rank\n", launch_environment().rank);
    std::fflush(nullptr);
    std::_Exit(1);
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

}  // namespace shardwise::testing

DOCTEST_REGISTER_LISTENER("shardwise_agree_on_result", 0, shardwise::testing::AgreeOnResult);
