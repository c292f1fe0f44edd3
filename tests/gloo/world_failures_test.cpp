// What every rank of a world of four processes is told when one of them dies, throws, stops, leaves, or calls something else:
// within a host and across. docs/testing.md says which case is which row of the promise.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <thread>

#include "gloo/worlds.hpp"

using namespace shardwise;
using namespace test;

namespace {

const std::string killed = "killed by signal 9";
const std::string sum_of_12 = "all_reduce(sum) of float [12] on axis 'tp'";

using World = std::shared_ptr<ProcessWorld>;

void sum(const ProcessCommunicator& c) { (void)add_up(c); }

// A process that ends by abort() leaves no image of itself, nor its words in the output of the tests.
void end_quietly() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  std::signal(SIGABRT, SIG_DFL);  // not doctest's
  if (std::freopen("/dev/null", "w", stderr) == nullptr) throw std::runtime_error("no /dev/null");
}

// All four make another call than rank 3, and are told `parts`, rank 3 too.
template <class Other>
void all_hear(const std::vector<std::string>& parts, Other other) {
  within_a_host_and_across(-1, "", [&](const Job& job, int rank) {
    const auto world = job.join(rank);
    const ProcessCommunicator c = world->communicator().with_axis("tp");
    const ProcessCommunicator half = *c.split(rank % 2, rank);
    expect(add_up(c), "a sum");
    meet_all();
    hears(
        c, half,
        [&] {
          rank == 3 ? other(c) : sum(c);
          c.barrier();
        },
        parts);
  });
}

}  // namespace

TEST_CASE("four processes: one is killed while it computes, and while nobody calls anything") {
  for (const auto computes : {0ms, 300ms})
    survivors_hear(
        2, killed, {"PeerFailedError", sum_of_12, "rank 2 died"},
        [](const ProcessCommunicator&, const World&) {
          std::this_thread::sleep_for(100ms);
          die();
        },
        [&](const ProcessCommunicator& c) {
          std::this_thread::sleep_for(computes);
          sum(c);
        });
}

TEST_CASE("four processes: one is killed while they connect") {
  // before the ranks know each other's hosts, and after
  for (const bool early : {true, false})
    within_a_host_and_across(2, killed, [&](const Job& job, int rank) {
      if (rank != 2) {
        const std::string said = thrown_by([&] { (void)job.join(rank); });
        expect_text(said, "PeerFailedError");
        expect_text(said, "rendezvous");
        expect_text(said, "rank 2 died");
        return;
      }
      const detail::WorldPlace place = job.place(rank);
      detail::StoreOptions options = place.store;
      options.size = job.size;
      detail::StoreClient client(place.endpoint, rank, options, detail::NoticeHandler([](const detail::Notice&) {}),
                                 hang);
      client.wait_for_all(hang);
      if (!early) client.set("host of 2", place.host_id);
      std::this_thread::sleep_for(100ms);
      die();
    });
}

TEST_CASE("four processes: one is killed in the middle of a payload of 256 MiB") {
  const std::size_t count = slow_build ? std::size_t{1} << 20 : std::size_t{1} << 26;
  within_a_host_and_across(1, killed, [&](const Job& job, int rank) {
    const auto world = job.join(rank);
    const ProcessCommunicator c = world->communicator().with_axis("tp");
    const ProcessCommunicator half = *c.split(rank % 2, rank);
    std::vector<float> x(count);
    if (rank == 1) {
      c.broadcast<float>(x, 0);  // the others may still be in this one when it dies
      std::thread([] {
        std::this_thread::sleep_for(30ms);
        die();
      }).detach();
    }
    hears(c, half,
          [&] {
            for (;;) c.broadcast<float>(x, 0);
          },
          {"PeerFailedError", "broadcast of float [" + std::to_string(count) + "] from rank 0 on axis 'tp'",
           "rank 1 died"});
  });
}

TEST_CASE("four processes: an exception that ends one reaches the others with its words") {
  survivors_hear(
      2, "killed by signal 6", {"PeerFailedError", sum_of_12, "rank 2 failed: the loss is no number"},
      [](const ProcessCommunicator&, const World& world) {
        end_quietly();
        const detail::LastWords words(world);
        std::thread([] { throw std::runtime_error("the loss is no number"); }).join();
      },
      sum);
}

TEST_CASE("four processes: one is stopped") {
  for (const bool shares : {true, false}) {
    INFO(way(shares));
    Job job;
    CHECK(patiently([&] {
            job = Job();
            job.shares = shares;
            const SharedBetween<std::atomic<int>> told;
            ForkedRanks ranks(job.size, [&](int rank) {
              const auto world = job.join(rank);
              const ProcessCommunicator c = world->communicator().with_axis("tp");
              const ProcessCommunicator half = *c.split(rank % 2, rank);
              expect(add_up(c), "a sum");
              meet_all();
              if (rank == 1) raise(SIGSTOP);
              const auto deadline = missed(1000ms);
              hears(c, half,
                    [&] {
                      try {
                        sum(c.with_deadline(deadline));
                      } catch (const TimeoutError& e) {
                        expect_missing(e.what(), "rank 1");
                        throw;
                      }
                    },
                    {"TimeoutError", "on axis 'tp': deadline of " + std::to_string(deadline.count()) + " ms passed on",
                     "missing: rank 1"});
              ++*told;
            });
            ranks.until([&] { return *told == 3; }, "the survivors' words");
            wait_until([&] { return ranks.send(1, SIGKILL), ranks.ended(1); }, "the end of the stopped rank");
            return said_by(ranks.last_words());
          }) == "rank 1: " + killed + "\n");
    CHECK(left_behind(job.run) == "");
  }
}

TEST_CASE("four processes: the one that holds the store dies") {
  survivors_hear(
      0, killed, {"PeerFailedError", sum_of_12, "rank 0 died"}, [](const ProcessCommunicator&, const World&) { die(); },
      sum);
}

TEST_CASE("four processes: one ends while the others still communicate") {
  survivors_hear(
      3, "", {"PeerFailedError", sum_of_12, "rank 3 left early"}, [](const ProcessCommunicator&, const World&) {}, sum);
}

TEST_CASE("four processes: one calls another operation, count, element type, or in another order") {
  all_hear({"MismatchError", "all_reduce(sum) of float [12]", "rank 3 calls broadcast of float [12] from rank 0"},
           [](const ProcessCommunicator& c) {
             std::array<float, 12> x{};
             c.broadcast<float>(x, 0);
           });
  all_hear({"MismatchError", "all_reduce(sum) of float [12]", "rank 3 calls all_reduce(sum) of float [13]"},
           [](const ProcessCommunicator& c) { (void)add_up(c, 13); });
  all_hear({"MismatchError", "all_reduce(sum) of float [12]", "rank 3 calls all_reduce(sum) of int32 [12]"},
           [](const ProcessCommunicator& c) {
             std::array<std::int32_t, 12> x{};
             c.all_reduce<std::int32_t>(x, x, ReduceOp::sum);
           });
  all_hear({"MismatchError", "all_reduce(sum) of float [12]", "rank 3 calls barrier"},
           [](const ProcessCommunicator& c) {
             c.barrier();  // first here, last elsewhere
             sum(c);
           });
}
