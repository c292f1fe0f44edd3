// Processes that find each other, part in order, and know who is missing.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/process/rendezvous.hpp>

#include "process/forked.hpp"
#include "process/strangers.hpp"

using namespace shardwise;
using namespace shardwise::detail;
using namespace std::chrono_literals;

namespace {

constexpr auto soon = test::hang;  // far more than anything takes

LaunchEnvironment place(int rank, int size, const std::string& address, const std::string& token = "") {
  LaunchEnvironment e;
  e.rank = rank;
  e.size = size;
  e.endpoint = parse_endpoint(address, "address");
  e.run_id = "run";
  e.token = token;
  return e;
}
std::string fresh_name() { return "local:test-" + random_letters(); }

std::string from(int rank) { return "from " + std::to_string(rank); }

NoticeHandler ignore() {
  return NoticeHandler([](const Notice&) {});
}

}  // namespace

TEST_CASE("processes meet, share keys and part; rank 0 stays until the last has gone") {
  for (const int size : {1, 2, 5}) {
    const std::string at = fresh_name();
    CHECK(test::run_forked(size, [&](int rank) {
            alarm(600);
            if (rank == 0) std::this_thread::sleep_for(50ms);  // it may come last
            Rendezvous store(place(rank, size, at), ignore(), soon);
            store.set(from(rank), text("rank ", rank));
            for (int r = 0; r < size; ++r)
              test::expect(store.get(from(r), soon) == std::string(text("rank ", r)), "each other's keys");
            // The others go on using it after rank 0 has come to its end.
            if (rank != 0) {
              std::this_thread::sleep_for(50ms);
              store.set("late", "value");
              test::expect(store.get("late", soon) == "value", "the store is still there");
            }
            store.close();
          }) == "");
  }
}

TEST_CASE("one process is a run of its own, twice beside each other") {
  LaunchEnvironment alone;
  Rendezvous first(alone, ignore(), soon), second(alone, ignore(), soon);
  first.set("key", "1");
  second.set("key", "2");
  CHECK(first.get("key", soon) == "1");
  first.close();
  second.close();
}

TEST_CASE("nowhere to meet is an error that says what to set") {
  LaunchEnvironment e;
  e.size = 2;
  e.no_endpoint = "set SHARDWISE_ADDRESS";
  CHECK_THROWS_WITH_AS(Rendezvous(e, ignore(), soon), "shardwise: set SHARDWISE_ADDRESS", Error);
}

TEST_CASE("a rank that never comes is named to every rank that did") {
  CHECK(test::patiently([] {
          const std::string at = fresh_name();
          const auto deadline = test::missed(300ms);
          return test::run_forked(3, [&](int rank) {
            alarm(600);
            std::string said;
            try {
              Rendezvous(place(rank, 4, at), ignore(), rank == 1 ? deadline : 60 * deadline);
            } catch (const TimeoutError& e) {
              said = e.what();
            }
            // Rank 1 found no rank 0, and the others no rank 1, when its deadline had passed.
            if (said.find(text("not all 4 ranks joined at ", at, " within ", deadline.count(), " ms")) ==
                std::string::npos)
              throw std::runtime_error(std::string(test::late) + said);
            test::expect_missing(said, "rank 3");
          });
        }) == "");
}

TEST_CASE("a second run at the address of the first is told so, and the first goes on") {
  for (const std::string& at : {fresh_name(), to_string(test::free_endpoint())}) {
    test::SharedBetween<std::atomic<int>> step;
    test::ForkedRanks first(2, [&](int rank) {
      alarm(600);
      Rendezvous store(place(rank, 2, at), ignore(), soon);
      ++*step;
      test::wait_until([&] { return *step == 4; }, "the second run");
      store.set(from(rank), "here");
      store.get(from(1 - rank), soon);
      store.close();
    });
    first.until([&] { return *step == 2; }, "the first run");
    test::ForkedRanks second(2, [&](int rank) {
      alarm(600);
      LaunchEnvironment e = place(rank, 2, at);
      e.run_id = "another run";
      Rendezvous(e, ignore(), soon);
    });
    const std::vector<std::string> said = second.last_words();
    *step = 4;
    CHECK(said[0].find("Address already in use. Has another job been started with this address?") != std::string::npos);
    CHECK(said[1].find("another job's run holds this address") != std::string::npos);
    for (const std::string& words : first.last_words()) CHECK(words == "");
  }
}

TEST_CASE("what one rank announces and how it ends reaches the others as notices, in order") {
  const std::string at = fresh_name();
  CHECK(test::run_forked(3, [&](int rank) {
          alarm(600);
          std::mutex mutex;
          std::vector<Notice> notices;
          const auto count = [&] {
            const std::lock_guard lock(mutex);
            return notices.size();
          };
          Rendezvous store(place(rank, 3, at, "token"), NoticeHandler([&](const Notice& n) {
                             const std::lock_guard lock(mutex);
                             notices.push_back(n);
                           }),
                           soon);
          if (rank == 2) {
            store.announce({FailureKind::peer, "rank 2 failed: out of cheese", 2});
            std::raise(SIGKILL);
          }
          test::wait_until([&] { return count() >= 2; }, "two notices");
          test::expect(notices[0].kind == NoticeKind::failed && notices[1].kind == NoticeKind::died, "their order");
          for (const Notice& n : {notices[0], notices[1]})
            test::expect(n.rank == 2 && n.failure.message == "rank 2 failed: out of cheese", n.failure.message);
          store.close();
        }) == "rank 2: killed by signal 9\n");
}
