// A process that a rank forks has copies of all that the rank has. Its end is not the rank's.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gloo/worlds.hpp"

using namespace shardwise;
using namespace test;

namespace {

int sum_of_ranks(const ProcessCommunicator& c) {
  const int mine = c.rank() + 1;
  int sum = 0;
  c.all_reduce(std::span<const int>(&mine, 1), std::span<int>(&sum, 1), ReduceOp::sum);
  return sum;
}

}  // namespace

TEST_CASE("a forked child ends as it likes: its parent's world, groups and moves go on, and nobody hears of it") {
  for (const bool shares : {true, false}) {
    CAPTURE(shares);
    Job job;
    job.size = 3;
    job.shares = shares;
    CHECK(run_forked(job.size, [&](int rank) {
            std::shared_ptr<ProcessWorld> world = job.join(rank);
            std::optional<ProcessCommunicator> c = world->communicator(), half = c->split(rank / 2, 0);
            constexpr std::size_t bytes = 100'000;
            const detail::Buffer block(bytes);
            std::memset(block.data(), rank + 1, bytes);
            std::shared_ptr<ProcessCommunicator::Posted> posted;
            CallInfo call;
            call.collective = Collective::all_gather;
            if (shares) posted = c->post(call, block, bytes);
            expect(sum_of_ranks(*c) == 6, "the sum of the ranks before");
            if (rank != 1) std::this_thread::sleep_for(100ms);
            const std::string said = run_forked(rank == 2 ? 0 : 1, [&](int) {
              expect(block.data()[bytes - 1] == std::byte(rank + 1), "the parent's tensor");
              const std::vector<char> large(std::size_t{1} << 24,
                                            'x');  // may lie where the parent has its peers' memory
              world->fail("a child's exception");
              posted = nullptr;
              half = c = std::nullopt;
              world = nullptr;
              expect(large.back() == 'x', "memory of its own");
            });
            expect(said.empty(), "nothing from the child, not " + said);
            meet_all();
            if (shares)
              posted->finish([&](const Peers& peers) {
                for (int r = 0; r < 3; ++r) expect(peers.in[r][bytes - 1] == std::byte(r + 1), "what each posted");
              });
            expect(sum_of_ranks(*c) == 6 && sum_of_ranks(*half) == (rank == 2 ? 1 : 3), "the sums after");
          }) == "");
  }
}
