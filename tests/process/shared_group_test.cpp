// Ranks that are processes of one host: they read each other's memory, agree on what they do, and survive each other.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/shared_posted.hpp>

#include "process/host.hpp"
#include "support/slow_build.hpp"

using namespace shardwise;
using namespace shardwise::detail;
using namespace std::chrono_literals;
using test::expect;
using test::expect_missing;
using test::expect_text;
using test::expect_within;
using test::ForkedRanks;
using test::ForkedStore;
using test::hang;
using test::HostRank;
using test::meet;
using test::missed;
using test::patiently;
using test::run_on_host;
using test::SharedBetween;
using test::thrown_by;
using test::wait_until;

namespace {

constexpr std::size_t MiB = std::size_t{1} << 20;

CallInfo call_of(Collective collective, std::int64_t count = 0, DType dtype = DType::float32) {
  CallInfo call;
  call.collective = collective;
  call.dtype = dtype;
  call.shape = Extents(Shape<1>{count});
  return call;
}
const CallInfo barrier = call_of(Collective::barrier);

constexpr auto nothing_to_do = [](const Peers&) {};

// Byte i of what rank r holds in its turn-th buffer.
unsigned char byte_of(int r, int turn, std::size_t i) {
  return static_cast<unsigned char>(i * 131u + i / 4096 * 7u + static_cast<unsigned>(r) * 59u +
                                    static_cast<unsigned>(turn) * 17u + 1u);
}
void fill(std::byte* to, std::size_t bytes, int r, int turn) {
  for (std::size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::byte>(byte_of(r, turn, i));
}
// Looks at every `step`-th byte and the last.
void expect_bytes(const std::byte* from, std::size_t bytes, int r, int turn, std::size_t step = 1) {
  const auto right = [&](std::size_t i) { return from[i] == static_cast<std::byte>(byte_of(r, turn, i)); };
  for (std::size_t i = 0; i < bytes; i += step)
    if (!right(i)) expect(false, "byte " + std::to_string(i) + " of rank " + std::to_string(r));
  expect(bytes == 0 || right(bytes - 1), "the last byte of rank " + std::to_string(r));
}

enum class Memory { arena, own };

// Every rank offers `bytes`, in two turns that use the same memory; all look at all.
void exchange_all(const HostRank& mine, std::size_t bytes, Memory memory, std::size_t step) {
  const Buffer block(bytes);
  std::vector<std::byte> own(memory == Memory::own ? bytes : 0);
  std::byte* const in = memory == Memory::own ? own.data() : block.data();
  expect(bytes == 0 || mine.host->arena().contains(in) == (memory == Memory::arena),
         "memory of the kind that is tested");
  const CallInfo call = call_of(Collective::all_gather, static_cast<std::int64_t>(bytes));
  int out = 0;
  for (int turn = 0; turn < 2; ++turn) {
    fill(in, bytes, mine.rank, turn);
    mine.group->exchange(mine.me(), call, in, bytes, &out, [&](const Peers& peers) {
      expect(peers.size == mine.size, "as many peers as ranks");
      for (int r = 0; r < mine.size; ++r) {
        if (bytes > 0) expect_bytes(peers.in[r], bytes, r, turn, step);
        expect((peers.out[r] != nullptr) == (r == mine.rank), "an output to write: one's own");
      }
      expect(peers.in[mine.rank] == in, "one's own input where it is");
    });
  }
}

void staged_all(const HostRank& mine, std::size_t bytes, int turns) {
  std::vector<std::byte> in(bytes);
  const CallInfo call = call_of(Collective::all_reduce, static_cast<std::int64_t>(bytes));
  for (int turn = 0; turn < turns; ++turn) {
    fill(in.data(), bytes, mine.rank, turn);
    mine.group->exchange_staged(mine.me(), call, in.data(), bytes, [&](const Peers& peers) {
      std::fill(in.begin(), in.end(), std::byte{0});  // free at once
      for (int r = 0; r < mine.size; ++r) expect_bytes(peers.in[r], bytes, r, turn);
      expect(peers.out[mine.rank] == nullptr, "no output in a staged exchange");
    });
  }
}

}  // namespace

TEST_CASE(
    "what every rank offers is what every rank reads: 1 to 7 ranks, no bytes to 64 MiB, arena and private memory") {
  for (const int n : {1, 2, 3, 4, 5, 7}) {
    CAPTURE(n);
    CHECK(run_on_host(n, [](const HostRank& mine) {
            for (const Memory memory : {Memory::arena, Memory::own})
              for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{32768},
                                              std::size_t{32769}, 5 * MiB + 3})
                exchange_all(mine, bytes, memory, bytes > MiB ? 4093 : 1);
          }) == "");
  }
  CHECK(run_on_host(4, [](const HostRank& mine) {
          const std::size_t most = (test::slow_build ? 8 : 64) * MiB;  // fill() takes long there
          exchange_all(mine, most, Memory::arena, 4093);
          exchange_all(mine, most, Memory::own, 4093);
        }) == "");
}

TEST_CASE("staged exchanges: small inputs are copied, and free at once; many in a row") {
  for (const int n : {1, 2, 3, 4, 5, 7}) {
    CAPTURE(n);
    CHECK(run_on_host(n, [](const HostRank& mine) {
            staged_all(mine, 0, 3);
            staged_all(mine, 1, 500);
            staged_all(mine, SharedGroup::staged_limit, 7);
            staged_all(mine, SharedGroup::piece_limit, 3);
            const std::vector<std::byte> more(SharedGroup::piece_limit + 1);
            expect_text(thrown_by([&] {
                          mine.group->exchange_staged(mine.me(), barrier, more.data(), more.size(), nothing_to_do);
                        }),
                        "524289 bytes are more than the 524288");
          }) == "");
  }
}

TEST_CASE("ranks that come at random times read the right bytes, in 2000 exchanges of every kind") {
  CHECK(run_on_host(4, [](const HostRank& mine) {
          Buffer block(70000);
          unsigned random = 12345u + static_cast<unsigned>(mine.rank);
          for (int turn = 0; turn < 2000; ++turn) {
            random = random * 1664525u + 1013904223u;
            if (random >> 29 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random >> 20 & 0xff));
            if (turn % 3 == 0) {
              block = Buffer(static_cast<std::size_t>(turn) * 30 + 1);
              fill(block.data(), 100, mine.rank, turn);
              mine.group->exchange(mine.me(), call_of(Collective::all_gather, turn), block.data(), 100, nullptr,
                                   [&](const Peers& peers) {
                                     for (int r = 0; r < 4; ++r) expect_bytes(peers.in[r], 100, r, turn);
                                   });
              fill(block.data(), 100, 9, 9);  // its readers have left
            } else {
              std::byte in[64];
              fill(in, 64, mine.rank, turn);
              mine.group->exchange_staged(mine.me(), call_of(Collective::all_reduce, turn), in, 64,
                                          [&](const Peers& peers) {
                                            for (int r = 0; r < 4; ++r) expect_bytes(peers.in[r], 64, r, turn);
                                          });
            }
          }
        }) == "");
}

TEST_CASE("messages: small and large, arena and private memory, a ring and both ways") {
  CHECK(run_on_host(3, [](const HostRank& mine) {
          const int next = (mine.rank + 1) % 3, before = (mine.rank + 2) % 3;
          int turn = 0;
          for (const std::size_t bytes :
               {std::size_t{0}, std::size_t{1}, std::size_t{32768}, std::size_t{32769}, 3 * MiB})
            for (const Memory memory : {Memory::arena, Memory::own}) {
              const Buffer block(bytes);
              std::vector<std::byte> own(bytes), got(bytes);
              std::byte* const data = memory == Memory::own ? own.data() : block.data();
              fill(data, bytes, mine.rank, ++turn);
              const CallInfo sent = call_of(Collective::send, static_cast<std::int64_t>(bytes));
              const CallInfo received = call_of(Collective::recv, static_cast<std::int64_t>(bytes));
              const auto send = [&] {
                mine.group->send(mine.me(), next, sent, data, bytes);
                fill(data, bytes, 9, 9);  // taken
              };
              if (mine.rank == 0) send();
              mine.group->recv(mine.me(), before, received, got.data(), bytes);
              if (mine.rank != 0) send();
              expect_bytes(got.data(), bytes, before, turn);
            }
        }) == "");
}

TEST_CASE("a message of another size or type is a mismatch on both ranks") {
  CHECK(run_on_host(2, [](const HostRank& mine) {
          int value = 7;
          const std::string said = thrown_by([&] {
            if (mine.rank == 0)
              mine.group->send(mine.me(), 1, call_of(Collective::send, 1, DType::int32), &value, 4);
            else
              mine.group->recv(mine.me(), 0, call_of(Collective::recv, 1), &value, 4);
          });
          expect(said.starts_with("MismatchError"), "a mismatch, not " + said);
          expect_text(said, "rank 0 calls send of int32 [1], rank 1 calls recv of float [1]");
          expect(value == 7, "nothing received");
        }) == "");
}

TEST_CASE("different calls are a mismatch that names both sides, before any body runs; then the group refuses") {
  for (const int n : {2, 5}) {
    CHECK(run_on_host(n, [](const HostRank& mine) {
            staged_all(mine, 10, 2);
            const CallInfo call = call_of(Collective::all_gather, mine.rank == 1 ? 11 : 10);
            bool ran = false;
            const auto body = [&](const Peers&) { ran = true; };
            const std::string said = thrown_by([&] { mine.group->exchange(mine.me(), call, &call, 1, nullptr, body); });
            expect(said.starts_with("MismatchError"), "a mismatch, not " + said);
            expect_text(said, "rank 0 calls all_gather of float [10], rank 1 calls all_gather of float [11]");
            expect(!ran, "no body");
            expect(thrown_by([&] { mine.group->exchange_staged(mine.me(), barrier, nullptr, 0, body); }) == said,
                   "the same error ever after");
            expect(!ran, "no body later");
          }) == "");
  }
}

TEST_CASE("splits, again and again, in other orders, with groups that work at once; parts are used again") {
  CHECK(run_on_host(5, [](const HostRank& mine) {
          std::uint64_t end = 0;
          for (int turn = 0; turn < 30; ++turn) {
            // Odd and even ranks, the order turned around every other time; rank 4 takes no part in every third.
            std::vector<int> members;
            const bool out = turn % 3 == 0 && mine.rank == 4;
            for (int r = 0; r < 5; ++r)
              if (!out && r % 2 == mine.rank % 2 && !(turn % 3 == 0 && r == 4)) members.push_back(r);
            if (turn % 2 == 1) std::reverse(members.begin(), members.end());
            auto part = mine.group->make_split(mine.me(), members);
            expect((part == nullptr) == out, "a group where the rank is in one");
            if (part != nullptr) {
              expect(part->size == static_cast<int>(members.size()), "the group's size");
              const int place =
                  static_cast<int>(std::find(members.begin(), members.end(), mine.rank) - members.begin());
              const Caller me{place, {}, hang};
              std::uint64_t ids[5] = {};
              std::byte in[16];
              fill(in, 16, mine.rank, turn);
              part->exchange_staged(me, call_of(Collective::all_gather, 16), in, 16, [&](const Peers& peers) {
                for (int r = 0; r < peers.size; ++r)
                  expect_bytes(peers.in[r], 16, members[static_cast<std::size_t>(r)], turn);
              });
              const std::uint64_t id = part->id();
              part->exchange_staged(me, call_of(Collective::all_gather, 8), &id, 8, [&](const Peers& peers) {
                for (int r = 0; r < peers.size; ++r) std::memcpy(&ids[r], peers.in[r], 8);
              });
              for (int r = 0; r < part->size; ++r) expect(ids[r] == id && id != mine.group->id(), "one number a group");
            }
            part.reset();
            mine.group->exchange_staged(mine.me(), barrier, nullptr, 0, nothing_to_do);  // all have dropped theirs
            if (turn == 9) end = mine.host->header().next.load();
          }
          expect(mine.host->header().next.load() == end, "no more memory for thirty splits than for ten");
        }) == "");
}

TEST_CASE("the group of all ranks may be asked for, dropped, and asked for again") {
  CHECK(run_on_host(3, [](const HostRank& mine) {
          for (int turn = 0; turn < 5; ++turn) {
            const HostRank again{mine.rank, mine.size, mine.host, SharedGroup::of_host(mine.host)};
            staged_all(again, 10, 2);
            // As many ranks, so that its part would be the one that was dropped, were it free.
            const auto other = again.group->make_split(mine.me(), {2, 1, 0});
            staged_all(again, 10, 2);
            expect(other->id() != again.group->id(), "two groups");
          }
        }) == "");
}

TEST_CASE("exchanges in two halves: many under way, finished in any order or dropped, other calls in between") {
  for (const int n : {1, 2, 4})
    for (const Memory memory : {Memory::arena, Memory::own}) {
      CAPTURE(n);
      CHECK(run_on_host(n, [&](const HostRank& mine) {
              constexpr std::size_t bytes = 40000;
              const CallInfo call = call_of(Collective::all_gather, 40000);
              std::vector<std::byte> own(bytes);
              for (int turn = 0; turn < 30; ++turn) {
                std::vector<std::unique_ptr<SharedPosted>> posted;
                for (int i = 0; i < 10; ++i) {
                  Buffer in = memory == Memory::own ? Buffer::view(own.data()) : Buffer(bytes);
                  fill(in.data(), bytes, mine.rank, turn * 10 + i);
                  posted.push_back(std::make_unique<SharedPosted>(mine.group, mine.me(), call, std::move(in), bytes));
                }
                staged_all(mine, 100, 1);
                for (int k = 0; k < 10; ++k) {
                  const int i = mine.rank % 2 == 0 ? k : 9 - k;
                  auto& one = posted[static_cast<std::size_t>(i)];
                  if ((i + turn) % 4 != mine.rank)  // the others read what this one drops
                    one->finish([&](const Peers& peers) {
                      for (int r = 0; r < n; ++r) expect_bytes(peers.in[r], bytes, r, turn * 10 + i, 97);
                    });
                  one.reset();
                  fill(Buffer(bytes).data(), bytes, 9, 9);  // memory that is freed too early is overwritten
                }
              }
            }) == "");
    }
}

TEST_CASE("what a rank has posted can be read after it has dropped the group, and is freed afterwards") {
  SharedBetween<std::atomic<bool>> read;
  CHECK(run_on_host(2, [&](const HostRank& mine) {
          constexpr std::size_t bytes = 3 * MiB;
          const CallInfo call = call_of(Collective::all_gather, 7);
          auto pair = mine.group->make_split(mine.me(), {0, 1});
          auto posted = [&] {
            Buffer in(bytes);
            fill(in.data(), bytes, mine.rank, 1);
            return std::make_unique<SharedPosted>(pair, mine.me(), call, std::move(in), bytes);
          }();
          if (mine.rank == 0) {
            expect(!posted->input_is_free(), "an input that rank 1 has not read");
            posted.reset();
            pair.reset();
            for (int i = 0; i < 8; ++i) fill(Buffer(bytes).data(), bytes, 9, i);
            *read = true;
            staged_all(mine, 10, 2);
            mine.host->sweep();
          } else {
            wait_until([&] { return read->load(); }, "rank 0 to have dropped its group");
            posted->finish([&](const Peers& peers) { expect_bytes(peers.in[0], bytes, 0, 1, 97); });
            expect(posted->input_is_free(), "an input that all have read");
            posted->wait_for_readers();
            staged_all(mine, 10, 2);
          }
          for (int turn = 0; turn < 100; ++turn) {
            SharedPosted one(mine.group, mine.me(), call, Buffer(bytes), bytes);
            one.finish(nothing_to_do);
          }
          expect(mine.host->arena().size() < 200 * MiB, "memory that is freed once all have read it");
        }) == "");
}

TEST_CASE("posts that differ, that one rank does not make, that nobody reads, or that are too many") {
  CHECK(run_on_host(2, [](const HostRank& mine) {
          SharedPosted posted(mine.group, mine.me(), call_of(Collective::all_gather, 7 + mine.rank), Buffer(10), 10);
          const std::string said = thrown_by([&] { posted.finish(nothing_to_do); });
          expect(said.starts_with("MismatchError"), "a mismatch, not " + said);
          expect_text(said, "rank 0 calls all_gather of float [7], rank 1 calls all_gather of float [8]");
        }) == "");
  CHECK(run_on_host(2, [](const HostRank& mine) {
          if (mine.rank == 1) return wait_until([&] { return mine.host->failed(); }, "the other's failure");
          SharedPosted posted(mine.group, mine.me(200ms), call_of(Collective::all_gather, 7), Buffer(10), 10);
          expect(!posted.ready(), "not all have posted");
          expect_text(thrown_by([&] { posted.finish(nothing_to_do); }),
                      "deadline of 200 ms passed on rank 0; missing: rank 1");
          expect(posted.ready(), "a failure is an answer");
        }) == "");
  CHECK(run_on_host(2, [](const HostRank& mine) {
          SharedPosted posted(mine.group, mine.me(200ms), call_of(Collective::all_gather, 7), Buffer(10), 10);
          test::meet_all();  // both have posted, by the same clock
          if (mine.rank == 1) return wait_until([&] { return mine.host->failed(); }, "the other's failure");
          posted.finish(nothing_to_do);
          expect_text(thrown_by([&] { posted.wait_for_readers(); }), "missing: rank 1");
        }) == "");
  CHECK(run_on_host(2, [](const HostRank& mine) {
          std::vector<std::unique_ptr<SharedPosted>> posted;
          const auto one = [&] {
            posted.push_back(std::make_unique<SharedPosted>(mine.group, mine.me(), barrier, Buffer(10), 10));
          };
          for (int i = 0; i < 256; ++i) one();
          staged_all(mine, 10, 1);
          expect_text(thrown_by(one), "more than 256 exchanges of one group are under way");
          posted[0]->finish(nothing_to_do);
          staged_all(mine, 10, 1);
          one();
        }) == "");
}

TEST_CASE("an arena that grows behind its readers' back is read where it grew") {
  CHECK(run_on_host(2, [](const HostRank& mine) {
          std::vector<Buffer> kept;
          for (int turn = 0; turn < 6; ++turn) {
            kept.emplace_back((turn % 2 == mine.rank ? 40 : 1) * MiB);
            const Buffer& mine_now = kept.back();
            fill(mine_now.data() + MiB - 1000, 1000, mine.rank, turn);
            mine.group->exchange(mine.me(), call_of(Collective::all_gather, turn), mine_now.data(), MiB, nullptr,
                                 [&](const Peers& peers) {
                                   for (int r = 0; r < 2; ++r) expect_bytes(peers.in[r] + MiB - 1000, 1000, r, turn);
                                 });
          }
          expect(mine.host->arena().size() > 100 * MiB, "an arena that has grown");
        }) == "");
}

TEST_CASE("a rank that ends while others wait for it has left early") {
  CHECK(run_on_host(3, [](const HostRank& mine) {
          staged_all(mine, 10, 1);
          if (mine.rank == 1) return;
          const auto began = std::chrono::steady_clock::now();
          const std::string said = thrown_by([&] { staged_all(mine, 10, 1); });
          expect(said.starts_with("PeerFailedError"), "a peer's failure, not " + said);
          expect_text(said, "shardwise::all_reduce(sum) of float [10]: rank 1 left early");
          expect_within(1s, began, "the early end is told");
        }) == "");
}

TEST_CASE("a rank that does not come is named when the deadline has passed") {
  CHECK(run_on_host(3, [](const HostRank& mine) {
          if (mine.rank == 2) {
            test::meet_all();
            wait_until([&] { return mine.host->failed(); }, "the others' failure");
            expect_text(thrown_by([&] { staged_all(mine, 10, 1); }), "missing: rank 2");
            return;
          }
          const auto deadline = missed(300ms);
          const Caller me{mine.rank, Name("tp"), deadline};
          test::meet_all();
          const std::string said = thrown_by([&] {
            mine.group->exchange(me, call_of(Collective::all_gather, 3), nullptr, 0, nullptr, nothing_to_do);
          });
          expect(said.starts_with("TimeoutError"), "a timeout, not " + said);
          expect_text(said, "all_gather of float [3] on axis 'tp': deadline of " + std::to_string(deadline.count()) +
                                " ms passed on rank ");
          expect_missing(said, "rank 2");
        }) == "");
}

TEST_CASE("a message that nobody takes, and one that nobody sends, end with the deadline") {
  for (const int waiting : {0, 1})
    CHECK(run_on_host(2, [&](const HostRank& mine) {
            if (mine.rank != 0) return wait_until([&] { return mine.host->failed(); }, "the other's failure");
            int value = 0;
            const std::string said = thrown_by([&] {
              if (waiting == 0) mine.group->send(mine.me(200ms), 1, call_of(Collective::send, 1), &value, 4);
              if (waiting == 1) mine.group->recv(mine.me(200ms), 1, call_of(Collective::recv, 1), &value, 4);
            });
            expect(said.starts_with("TimeoutError"), "a timeout, not " + said);
            expect_text(said, "missing: rank 1");
          }) == "");
}

TEST_CASE("what another process reports stops all groups of the host, also those that it is not in") {
  SharedBetween<std::atomic<int>> who_know;
  CHECK(run_on_host(4, [&](const HostRank& mine) {
          const int base = mine.rank / 2 * 2, before = *who_know;
          const auto pair = mine.group->make_split(mine.me(), {base, base + 1});
          test::meet_all();
          if (mine.rank == 0) {
            std::this_thread::sleep_for(100ms);
            mine.group->fail({FailureKind::peer, "rank 0 failed: out of cheese", 0});
          } else {  // ranks 1 and 2 wait for one that does not come, as rank 3 never does
            if (mine.rank == 3) wait_until([&] { return *who_know > before; }, "rank 2 to know");
            const Caller me{mine.rank - base, Name("dp"), hang};
            const auto began = std::chrono::steady_clock::now();
            const std::string said = thrown_by([&] { pair->exchange_staged(me, barrier, nullptr, 0, nothing_to_do); });
            expect(said == "PeerFailedError: shardwise::barrier on axis 'dp': rank 0 failed: out of cheese", said);
            if (mine.rank == 2) ++*who_know;
            if (mine.rank != 3) expect_within(1s, began, "another group's failure is told");
          }
          expect_text(thrown_by([&] { mine.group->make_split(mine.me(), {}); }), "split: rank 0 failed: out of cheese");
        }) == "");
}

TEST_CASE("the process that finds a failure tells its listener, once, and no other does") {
  SharedBetween<std::atomic<int>> told;
  CHECK(run_on_host(3, [&](const HostRank& mine) {
          struct Listener : FailureListener {
            std::atomic<int>* count = nullptr;
            void found(const Failure& failure) noexcept override {
              *count += failure.message == "rank 1 failed: x" ? 1 : 100;
            }
          } listener;
          listener.count = &*told;
          mine.host->set_listener(&listener);
          staged_all(mine, 1, 1);
          if (mine.rank == 1) mine.host->fail({FailureKind::peer, "rank 1 failed: x", 1});
          expect_text(thrown_by([&] { staged_all(mine, 1, 2); }), "rank 1 failed: x");
          mine.host->fail({FailureKind::peer, "a later one", 2});
          expect_text(thrown_by([&] { staged_all(mine, 1, 2); }), "rank 1 failed: x");
        }) == "");
  CHECK(*told == 1);
}

// ---- ranks that are killed or stopped ----------------------------------------------------------------------------

namespace {

constexpr int victim = 2;

struct Death {
  std::atomic<bool> awaited{false};
  std::atomic<std::int64_t> at{0};
};
std::int64_t nanoseconds() {  // the same clock in all processes
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
std::chrono::steady_clock::time_point time_of(std::int64_t at) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(at));
}

// `before_death` on the victim, which is killed in it; what the others' `call` throws within a second of that names it.
template <class Die, class Call>
void kill_in(Die before_death, Call call) {
  CHECK(patiently([&] {
          ForkedStore store;
          SharedBetween<Death> death;
          ForkedRanks ranks(4, [&](int rank) {
            const HostRank mine = meet(store, rank, 4);
            if (rank == victim) {
              before_death(mine, *death);
              expect(false, "dead by now");
            }
            const std::string said = thrown_by([&] { call(mine); });
            expect(death->at != 0, "no answer before the death, but: " + said);
            expect_within(1s, time_of(death->at), "the death is told");
            expect(said.starts_with("PeerFailedError: shardwise::"), "a peer's failure, not " + said);
            expect_text(said, "rank 2 died");
            expect_text(thrown_by([&] { staged_all(mine, 1, 1); }), "rank 2 died");
          });
          ranks.until([&] { return death->awaited.load(); }, "the victim's readiness");
          std::this_thread::sleep_for(50ms);
          death->at = nanoseconds();
          ranks.send(victim, SIGKILL);
          return test::said_by(ranks.last_words());
        }) == "rank 2: killed by signal 9\n");
}

void rest(const HostRank&, Death& death) {
  death.awaited = true;
  std::this_thread::sleep_for(hang);
}

}  // namespace

TEST_CASE("a rank that is killed while it computes is named by those who wait for it") {
  kill_in(rest, [](const HostRank& mine) { staged_all(mine, 10, 1); });
}

TEST_CASE("a rank that is killed in the middle of a data phase is named by those who have finished theirs") {
  kill_in(
      [](const HostRank& mine, Death& death) {
        mine.group->exchange(mine.me(), barrier, nullptr, 0, nullptr, [&](const Peers&) { rest(mine, death); });
      },
      [](const HostRank& mine) { mine.group->exchange(mine.me(), barrier, nullptr, 0, nullptr, nothing_to_do); });
}

TEST_CASE("a rank that is killed before it takes a message, or sends one, is named by the other end") {
  for (const bool sends : {true, false})
    kill_in(rest, [&](const HostRank& mine) {
      std::byte data[100] = {};
      if (mine.rank != 0) return staged_all(mine, 10, 1);
      if (sends) mine.group->send(mine.me(), victim, call_of(Collective::send, 100), data, 100);
      mine.group->recv(mine.me(), victim, call_of(Collective::recv, 100), data, 100);
    });
}

namespace {

// A rank is stopped while it reads. The others give up, and use what it was reading (and would write, if ranks pushed) for
// something else; then it goes on. `call(HostRank, deadline, Buffer in, body)`: what they call.
template <class Call>
void stop_in(Call call) {
  constexpr std::size_t bytes = 16 * MiB;
  CHECK(patiently([&] {
          ForkedStore store;
          struct Steps {
            std::atomic<bool> in_body{false}, continued{false}, through{false};
            std::atomic<int> reused{0};
          };
          SharedBetween<Steps> steps;
          ForkedRanks ranks(3, [&](int rank) {
            const HostRank mine = meet(store, rank, 3);
            Buffer in(bytes), out(bytes);
            fill(in.data(), bytes, rank, 0);
            const auto body = [&](const Peers& peers) {
              if (rank == victim) {
                steps->in_body = true;
                wait_until([&] { return steps->continued.load(); }, "to be stopped and continued");
              }
              for (int r = 0; r < 3; ++r) std::memcpy(out.data() + MiB * static_cast<std::size_t>(r), peers.in[r], MiB);
            };
            const std::string said =
                thrown_by([&] { call(mine, rank == victim ? hang : missed(1500ms), std::exchange(in, {}), body); });
            if (rank == victim) steps->through = true;
            expect(said.starts_with("TimeoutError"), "a timeout, not " + said);
            expect_missing(said, "rank 2");
            if (rank == victim) return;
            out = Buffer();
            std::vector<Buffer> again;
            for (int i = 0; i < 4; ++i) {
              again.emplace_back(bytes);
              fill(again.back().data(), bytes, rank, 10 + i);
            }
            ++steps->reused;
            wait_until([&] { return steps->through.load(); }, "the stopped rank to be through");
            for (int i = 0; i < 4; ++i) expect_bytes(again[static_cast<std::size_t>(i)].data(), bytes, rank, 10 + i);
            expect(thrown_by([&] { staged_all(mine, 1, 1); }) == said, "the same error ever after");
          });
          ranks.until([&] { return steps->in_body.load(); }, "rank 2 in its data phase");
          ranks.send(victim, SIGSTOP);
          ranks.until([&] { return steps->reused.load() == 2; }, "the others to use their memory again");
          steps->continued = true;
          ranks.send(victim, SIGCONT);
          return test::said_by(ranks.last_words());
        }) == "");
}

}  // namespace

TEST_CASE(
    "a rank that is stopped while it reads is missing; the others reuse their memory; it wakes and harms nobody") {
  const CallInfo call = call_of(Collective::all_gather, 5);
  constexpr std::size_t bytes = 16 * MiB;
  stop_in([&](const HostRank& mine, std::chrono::milliseconds deadline, Buffer in, PeersFunction body) {
    mine.group->exchange(mine.me(deadline), call, in.data(), bytes, nullptr, body);
  });
  stop_in([&](const HostRank& mine, std::chrono::milliseconds deadline, Buffer in, PeersFunction body) {
    SharedPosted posted(mine.group, mine.me(deadline), call, std::move(in), bytes);
    posted.finish(body);
    posted.wait_for_readers();
  });
}

namespace {
// Memory whose first write stops the process.
constexpr std::size_t trap_bytes = 65536;
void* trap = nullptr;
std::atomic<bool>* trapped = nullptr;
void stop_at_the_trap(int) {
  *trapped = true;
  raise(SIGSTOP);
  mprotect(trap, trap_bytes, PROT_READ | PROT_WRITE);
}
}  // namespace

TEST_CASE("a rank that is stopped while it takes a message finds that nobody vouches for it") {
  CHECK(patiently([] {
          ForkedStore store;
          struct Steps {
            std::atomic<bool> trapped{false}, given_up{false};
          };
          SharedBetween<Steps> steps;
          ForkedRanks ranks(2, [&](int rank) {
            const HostRank mine = meet(store, rank, 2);
            const CallInfo call = call_of(Collective::send, trap_bytes);
            Buffer block(trap_bytes);
            std::string said;
            if (rank == 0) {
              said = thrown_by([&] { mine.group->send(mine.me(missed(500ms)), 1, call, block.data(), trap_bytes); });
              const bool in_time = steps->trapped;
              steps->given_up = true;
              if (!in_time) throw std::runtime_error(std::string(test::late) + "rank 1 was not yet stopped");
            } else {
              trap = mmap(nullptr, trap_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              trapped = &steps->trapped;
              signal(SIGSEGV, &stop_at_the_trap);
              said = thrown_by([&] { mine.group->recv(mine.me(), 0, call, trap, trap_bytes); });
            }
            expect(said.starts_with("TimeoutError"), "a timeout, not " + said);
            expect_text(said, "missing: rank 1");
          });
          ranks.until([&] { return steps->given_up.load(); }, "the sender to give up");
          // Again and again: a late one stops now.
          wait_until([&] { return ranks.send(1, SIGCONT), ranks.ended(1); }, "the end of the stopped rank");
          return test::said_by(ranks.last_words());
        }) == "");
}

// ---- how they find each other ------------------------------------------------------------------------------------

TEST_CASE("a rank that never comes to its host is named; so is one that is killed meanwhile") {
  CHECK(patiently([] {
          ForkedStore store;
          return test::run_forked(3, [&](int rank) {
            if (rank == 1) return;
            const auto deadline = missed(400ms);
            const std::string said = thrown_by([&] { meet(store, rank, 3, deadline); });
            expect(said.starts_with("TimeoutError: "), "a timeout, not " + said);
            expect_missing(said, "rank 1");
            expect(said == "TimeoutError: shardwise: deadline of " + std::to_string(deadline.count()) +
                               " ms passed while the ranks of one host met; missing: rank 1",
                   said);
          });
        }) == "");

  CHECK(patiently([] {
          ForkedStore store;
          SharedBetween<std::atomic<bool>> meets;
          ForkedRanks ranks(3, [&](int rank) {
            if (rank == 1) std::this_thread::sleep_for(hang);
            if (rank == 2) *meets = true;
            const std::string said = thrown_by([&] { meet(store, rank, 3, missed(5s)); });
            if (rank == 0 && said.starts_with("TimeoutError: "))
              throw std::runtime_error(std::string(test::late) + "rank 2 was killed before it had come; " + said);
            expect(said == "PeerFailedError: shardwise: rank 2 ended while the ranks of one host met", said);
          });
          ranks.until([&] { return meets->load(); }, "rank 2");
          std::this_thread::sleep_for(missed(300ms));
          ranks.send(2, SIGKILL);
          wait_until([&] { return ranks.ended(0); }, "the end of rank 0");
          ranks.send(1, SIGKILL);
          return test::said_by(ranks.last_words());
        }) == "rank 1: killed by signal 9\nrank 2: killed by signal 9\n");
}

TEST_CASE(
    "strangers at the door are let go: silent ones, loud ones, one without the token, one that says it is rank 1") {
  ForkedStore store;
  CHECK(test::run_forked(4, [&](int rank) {
          if (rank < 3) {
            if (rank == 1) std::this_thread::sleep_for(500ms);
            const HostRank mine = meet(store, rank, 3);
            staged_all(mine, 100, 3);
            return;
          }
          const std::string door = store.get("host", hang), name = door.substr(0, door.find(' '));
          std::vector<Descriptor> open;
          for (int i = 0; i < 100; ++i) open.push_back(connect_locally(name));
          expect(static_cast<bool>(open.back()), "a connection");
          send_packet(open[0], "anything", 8, {});
          HostHello hello;
          hello.world_rank = 1;
          hello.layout = SegmentHeader::this_layout;
          const int fd = 0;
          send_packet(open[1], &hello, sizeof hello, {&fd, 1});
          char answer = 0;
          std::vector<Descriptor> fds;
          std::vector<pollfd> first{{open[0].get(), POLLIN, 0}}, second{{open[1].get(), POLLIN, 0}};
          poll_until(first, hang), poll_until(second, hang);
          expect(first[0].revents != 0 && second[0].revents != 0, "an end of the connection");
          expect(!receive_packet(open[0], &answer, 1, fds) && !receive_packet(open[1], &answer, 1, fds), "no answer");
          expect(fds.empty(), "no descriptor for a stranger");
        }) == "");
}

TEST_CASE("another user at the door is let go, even with the token") {
  if (geteuid() != 0) {
    MESSAGE("skipped: only root can be another user");
    return;
  }
  ForkedStore store;
  CHECK(test::run_forked(3, [&](int rank) {
          if (rank < 2) {
            if (rank == 1) std::this_thread::sleep_for(500ms);
            staged_all(meet(store, rank, 2), 100, 3);
            return;
          }
          const std::string door = store.get("host", hang);
          expect(seteuid(65534) == 0, "another user");
          const Descriptor socket = connect_locally(door.substr(0, door.find(' ')));
          HostHello hello;
          std::memcpy(hello.token, door.data() + door.find(' ') + 1, sizeof hello.token);
          hello.world_rank = 1;
          hello.layout = SegmentHeader::this_layout;
          hello.verdict.set(HostVerdict::apart, "the stranger");
          send_packet(socket, &hello, sizeof hello, {});
        }) == "");
}

TEST_CASE("where one rank cannot share its memory none does, and all know why") {
  ForkedStore store;
  CHECK(test::run_forked(3, [&](int rank) {
          if (rank == 1) {
            rlimit little{};
            little.rlim_cur = little.rlim_max = 0;
            setrlimit(RLIMIT_FSIZE, &little);
          }
          std::string obstacle;
          const auto host = meet_on_host(store, "host", {0, 1, 2}, rank, 3, hang, obstacle);
          expect(host == nullptr, "no shared memory");
          expect_text(obstacle, "rank 1: ");
        }) == "");
}

TEST_CASE("a host that is gone leaves no descriptor but the arena's, and what is executed meanwhile inherits none") {
  ForkedStore store;
  CHECK(test::run_forked(3, [&](int rank) {
          const int before = test::open_descriptors(), inheritable = test::inheritable_descriptors();
          {
            const HostRank mine = meet(store, rank, 3);
            const auto pair = mine.group->make_split(mine.me(), {0, 1, 2});
            staged_all(mine, 10, 2);
            exchange_all(mine, MiB, Memory::own, 1);
            expect(test::open_descriptors() == before + 3, "the arena and two lifelines are open");
            expect(test::inheritable_descriptors() == inheritable, "nothing to inherit");
          }
          expect(test::open_descriptors() == before + 1, "the arena alone is open");
        }) == "");
}
