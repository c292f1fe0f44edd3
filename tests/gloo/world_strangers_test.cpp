// Four processes that compute while others, who do not belong to them, come to their store: within a host and across.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gloo/worlds.hpp"
#include "process/strangers.hpp"

using namespace shardwise;
using namespace test;

namespace {

struct Progress {
  std::atomic<int> joined{0};
  std::atomic<bool> over{false};
};

// Sums until rank 0 sees that the others' part of the test is over.
void compute(const ProcessCommunicator& c, Progress& progress) {
  ++progress.joined;
  std::array<int, 1> over{0};
  while (over[0] == 0) {
    std::this_thread::sleep_for(2ms);
    expect(add_up(c), "a sum");
    over[0] = progress.over ? 1 : 0;
    c.broadcast<int>(over, 0);
  }
}

// What a second job's rank, or one without the token, is told.
std::string refusal(const Job& job, int rank) {
  return thrown_by([&] { (void)job.join(rank); });
}

}  // namespace

TEST_CASE("four processes: strangers at the store are refused and reported once, and the job goes on") {
  for (const bool shares : {true, false}) {
    INFO(way(shares));
    Job job;
    job.shares = shares;
    job.endpoint = free_endpoint();
    job.token = "a secret of this test";
    const SharedBetween<Progress> progress;
    ForkedRanks ranks(job.size, [&](int rank) {
      CapturedErrors errors;
      {
        const auto world = job.join(rank);
        compute(world->communicator(), *progress);
      }
      const std::string log = errors.restore();
      if (rank != 0) return expect(log.empty(), "nothing said, not: " + log);
      expect(occurrences(log, "with no token or a wrong one") == 1, "the wrong token once: " + log);
      const auto no_rank = occurrences(log, "something else than a rank does") + occurrences(log, "that ended before");
      expect(no_rank == 1, "those that are no ranks once: " + log);
      expect(occurrences(log, "did not say in time") == 1, "the slow once: " + log);
      expect(occurrences(log, "\n") <= 4, "a line a kind: " + log);
      expect(log.find("secret") == std::string::npos, "no token in: " + log);
    });
    ranks.until([&] { return progress->joined == job.size; }, "the four processes");

    Job other = job;
    for (const char* token : {"", "another secret"}) {
      other.token = token;
      CHECK(refusal(other, 1).find("refused rank 1: its token is another one") != std::string::npos);
    }
    const detail::Descriptor random = stranger(job.endpoint);
    CHECK(detail::send_all(random, std::string(4, '\0') + detail::random_nonce(), stranger_end()));
    CHECK(is_closed(random));
    const std::string hello =
        detail::hello_frame(job.token, detail::random_nonce(), {1, 4, detail::random_nonce(), job.run});
    CHECK_FALSE(writes_slowly(stranger(job.endpoint), hello, 20ms));
    crowd(job.endpoint, shares && !slow_build ? 10000 : 1000);

    progress->over = true;
    CHECK(said_by(ranks.last_words()) == "");
  }
}

TEST_CASE("four processes: a second job at their address gets an error that says so, and they go on") {
  Job jobs[2];
  jobs[0].shares = true;
  jobs[1].shares = false;
  jobs[1].endpoint = free_endpoint();
  SharedBetween<Progress> progress[2];
  const auto run_first = [&](int j) {
    return [&, j](int rank) {
      const auto world = jobs[j].join(rank);
      compute(world->communicator(), *progress[j]);
    };
  };
  ForkedRanks first(4, run_first(0)), second(4, run_first(1));
  first.until([&] { return progress[0]->joined == 4; }, "the first job");
  second.until([&] { return progress[1]->joined == 4; }, "the second job");
  // Of each a second one, whose ranks 0 and 1 come.
  const std::string wrong = run_forked(4, [&](int who) {
    Job late = jobs[who / 2];
    late.endpoint = late.place(0).endpoint;
    late.run = "another";
    expect_text(refusal(late, who % 2), who % 2 == 0 ? "Has another job been started with this address?"
                                                     : "another job's run holds this address");
  });
  CHECK(wrong == "");
  for (auto& p : progress) p->over = true;
  CHECK(said_by(first.last_words()) == "");
  CHECK(said_by(second.last_words()) == "");
}
