// What counts up, and what runs out: numbers that come round, handles that go on where others stopped, memory and descriptors that
// are short.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <shardwise/backends/process/shared_posted.hpp>

#include "process/host.hpp"

using namespace shardwise;
using namespace shardwise::detail;
using namespace test;

namespace {

CallInfo gather(std::int64_t count) {
  CallInfo call;
  call.collective = Collective::all_gather;
  call.dtype = DType::int32;
  call.shape = Extents(Shape<1>{count});
  return call;
}

}  // namespace

TEST_CASE("the mark of a post is reached by itself and what comes after it, also where 32 bits come round") {
  constexpr std::uint64_t round = std::uint64_t{1} << 32, depth = SharedPart::most_posts;
  std::atomic<std::uint64_t> at;
  for (const std::uint64_t number : {depth, round - 2, round - 1, round, round + 1, round + depth - 1, 5 * round - 1}) {
    CAPTURE(number);
    const std::uint64_t mark = SharedPost::mark(7, number);
    at = mark;
    CHECK(SharedPost::reached(at, mark));
    at = SharedPost::mark(7, number - depth);  // what lay there before
    CHECK(!SharedPost::reached(at, mark));
    at = SharedPost::mark(7, number + depth);  // a rank that is ahead
    CHECK(SharedPost::reached(at, mark));
    at = SharedPost::mark(6, number);  // an earlier group's
    CHECK(!SharedPost::reached(at, mark));
    at = SharedPost::mark(8, 0);  // a later one's
    CHECK(SharedPost::reached(at, mark));
    at = 0;
    CHECK(!SharedPost::reached(at, mark));
  }
}

TEST_CASE("exchanges in two halves go on where an earlier handle of the group stopped") {
  CHECK(run_on_host(2, [](HostRank mine) {
          const auto post_one = [&](int value) {
            Buffer in(4);
            std::memcpy(in.data(), &value, 4);
            return std::make_unique<SharedPosted>(mine.group, mine.me(), gather(1), std::move(in), 4);
          };
          const auto expect_values = [&](SharedPosted& posted, int turn) {
            posted.finish([&](const Peers& peers) {
              for (int r = 0; r < 2; ++r) {
                int got = -1;
                std::memcpy(&got, peers.in[r], 4);
                expect(got == 10 * turn + r, std::to_string(got) + " from rank " + std::to_string(r));
              }
            });
          };
          for (int turn = 0; turn < 3; ++turn) {
            if (mine.rank == 1) std::this_thread::sleep_for(20ms);  // rank 0 must not find what was posted before
            const auto posted = post_one(10 * turn + mine.rank);
            expect_values(*posted, turn);
            mine.group = nullptr;
            mine.group = SharedGroup::of_host(mine.host);
          }
        }) == "");
}

TEST_CASE("a group that finds no room leaves it to smaller ones") {
  constexpr std::size_t bytes = std::size_t{64} << 20;
  const Descriptor file = make_shared_memory("test");
  REQUIRE(ftruncate(file.get(), bytes) == 0);
  const Mapping segment(file.get(), bytes, PROT_READ | PROT_WRITE);
  SegmentHeader& header = *SegmentHeader::make(segment.data(), bytes);
  for (int i = 0; i < 3; ++i) CHECK(header.make_part(1000) == 0);
  CHECK(header.make_part(2) != 0);
  CHECK(header.take(std::size_t{1} << 40) == 0);
  CHECK(header.take(100) != 0);
}

TEST_CASE("ranks of a user who may send few descriptors at once meet all the same") {
  constexpr int ranks = 12;
  ForkedStore store;
  CHECK(run_forked(ranks, [&](int rank) {
          rlimit few{64, 64};
          expect(setrlimit(RLIMIT_NOFILE, &few) == 0, "a limit");
          if (geteuid() == 0) expect(setresuid(65534, 65534, 65534) == 0, "a user whom limits hold for");
          meet(store, rank, ranks).host->depart();
        }) == "");
}
