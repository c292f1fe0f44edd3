// Worlds of processes that meet through the store: that they compute together, and what the others are told when one fails.
#include <doctest/doctest.h>

#include <csignal>
#include <string>

#include <unistd.h>

#include <shardwise/backends/process/world.hpp>

#include "comm/conformance.hpp"
#include "process/host.hpp"

using namespace shardwise;
using namespace test;
using detail::ProcessWorld;

namespace {

// A place in a world of this test run alone.
detail::WorldPlace place_of(int rank, int size, const std::string& run) {
  detail::WorldPlace place;
  place.rank = rank;
  place.size = size;
  place.endpoint.local = "shardwise-world-test-" + run;
  place.store.run_id = run;
  place.host_id = "here";
  place.deadline = hang;
  return place;
}

// f(world, communicator) on n processes: what went wrong, "" if nothing.
template <class F>
std::string run_world(int n, F f) {
  static int worlds = 0;
  return patiently([&] {
    const std::string run = std::to_string(getpid()) + "-" + std::to_string(++worlds);
    return run_forked(n, [&](int rank) {
      const auto world = ProcessWorld::join(place_of(rank, n, run));
      f(*world, world->communicator());
    });
  });
}

}  // namespace

TEST_CASE("a world of processes meets through the store and does what every communicator does") {
  for (const int n : {1, 2, 4})
    CHECK(run_world(n, [](ProcessWorld&, const ProcessCommunicator& c) { conforms(c); }) == "");
}

TEST_CASE("a rank that is killed while the others wait for it is named at once") {
  const std::string wrong = run_world(3, [](ProcessWorld&, const ProcessCommunicator& c) {
    c.barrier();
    meet_all();
    if (c.rank() == 1) {
      std::this_thread::sleep_for(50ms);
      kill(getpid(), SIGKILL);
    }
    const auto start = std::chrono::steady_clock::now();
    const std::string said = thrown_by([&] { c.with_axis("tp").barrier(); });
    expect_within(1s, start, "the death is told");
    expect_text(said, "PeerFailedError");
    expect_text(said, "barrier on axis 'tp'");
    expect_text(said, "rank 1 died");
    expect(thrown_by([&] { c.barrier(); }) == thrown_by([&] { c.barrier(); }), "the same again");
  });
  CHECK(wrong == "rank 1: killed by signal 9\n");
}

TEST_CASE("an exception on one rank reaches the others with its words") {
  CHECK(run_world(3, [](ProcessWorld& world, const ProcessCommunicator& c) {
          c.barrier();
          meet_all();
          if (c.rank() == 2) return world.fail("out of cheese");
          const std::string said = thrown_by([&] { c.barrier(); });
          expect_text(said, "PeerFailedError");
          expect_text(said, "rank 2 failed: out of cheese");
        }) == "");
}

TEST_CASE("the store's rank is a rank like the others: its death is told, its early end too") {
  const std::string wrong = run_world(3, [](ProcessWorld&, const ProcessCommunicator& c) {
    c.barrier();
    meet_all();
    if (c.rank() == 0) kill(getpid(), SIGKILL);
    expect_text(thrown_by([&] { c.barrier(); }), "rank 0 died");
  });
  CHECK(wrong == "rank 0: killed by signal 9\n");
  CHECK(run_world(3, [](ProcessWorld&, const ProcessCommunicator& c) {
          c.barrier();
          meet_all();
          if (c.rank() != 0) expect_text(thrown_by([&] { c.barrier(); }), "rank 0 left early");
        }) == "");
}

TEST_CASE("worlds follow one another in the same processes: a failure ends with its world") {
  const std::string run = std::to_string(getpid()) + "-again";
  CHECK(run_forked(3, [&](int rank) {
          for (int i = 0; i < 5; ++i) {
            const auto world = ProcessWorld::join(place_of(rank, 3, run + std::to_string(i)));
            const ProcessCommunicator c = world->communicator();
            c.barrier();
            meet_all();
            if (rank == i % 3) c.abort("enough");
            expect_text(thrown_by([&] { c.barrier(); }), "enough");
          }
        }) == "");
}
