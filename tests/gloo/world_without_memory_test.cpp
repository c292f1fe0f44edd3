// A host whose ranks cannot share their memory: one of them says so, and they send messages.
#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <string_view>

#include <sys/resource.h>

#include <shardwise/base/warning.hpp>

#include "gloo/worlds.hpp"

using namespace shardwise;
using namespace test;

namespace {

// This process' files stay empty: no memory to share.
void forbid_memory() {
  const rlimit none{0, 0};
  expect(setrlimit(RLIMIT_FSIZE, &none) == 0, "a limit");
}

}  // namespace

TEST_CASE("where the system forbids one rank to share its memory, one warning says so and all send messages") {
  const SharedBetween<std::atomic<int>> warnings;
  const Job job;
  CHECK(run_forked(job.size, [&](int rank) {
          if (rank == 2) forbid_memory();
          std::string heard;
          const ScopedWarningHandler handler([&](std::string_view words) {
            heard += words;
            warnings->fetch_add(1);
          });
          const auto world = job.join(rank);
          const ProcessCommunicator c = world->communicator();
          expect(!c.direct() && add_up(c) && add_up(c, 100'000), "sums, by messages");
          if (rank == 0)
            expect(heard.starts_with("the ranks of this host share no memory: rank 2: no 0 MiB of address space") &&
                       heard.ends_with("; they send messages"),
                   heard);
        }) == "");
  CHECK(warnings->load() == 1);
  CHECK(left_behind(job.run) == "");
}

TEST_CASE("where the system forbids one rank to share its memory and there is no network, all get an error") {
  const Job job;
  CHECK(run_forked(job.size, [&](int rank) {
          if (rank == 2) forbid_memory();
          auto place = job.place(rank);
          place.connect = nullptr;
          expect_text(thrown_by([&] { ProcessWorld::join(place); }),
                      "another: shardwise: the ranks of this host share no memory: rank 2: ");
        }) == "");
}
