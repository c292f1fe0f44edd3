// Worlds of several hosts, here of one machine that says it is several: direct within a host, messages across, and failures that
// reach all.
#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tensor/factories.hpp>

#include "comm/conformance.hpp"
#include "gloo/on_hosts.hpp"
#include "redistribute/made.hpp"

using namespace shardwise;
using namespace test;

namespace {

float sum(const ProcessCommunicator& c) {
  float in = static_cast<float>(c.rank() + 1), out = 0;
  c.all_reduce<float>({&in, 1}, {&out, 1}, ReduceOp::sum);
  return out;
}

}  // namespace

TEST_CASE("ranks of several hosts do what every communicator does") {
  for (const Hosts& hosts : {Hosts{0, 0, 1, 1}, Hosts{0, 0, 0, 1}, Hosts{0, 1, 0, 1, 2}, Hosts{0, 1}})
    CHECK(run_on_hosts(hosts, [](const ProcessCommunicator& c) {
            expect(!c.direct(), "messages across hosts");
            conforms(c);
          }) == "");
}

TEST_CASE("a split whose ranks share a host is direct, whatever it was split from; others send messages") {
  CHECK(run_on_hosts({0, 0, 1, 1}, [](const ProcessCommunicator& world) {
          const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
          const ProcessCommunicator& dp = mesh.group(1);
          const ProcessCommunicator& tp = mesh.group(2);
          expect(tp.direct() && !dp.direct(), "shared memory within the hosts only");
          const auto one = world.split(world.rank() == 2 ? 0 : 1, 0);
          expect(one->direct() == (one->size() == 1), "one rank alone, three on two hosts");
          expect(sum(*one) == static_cast<float>(one->size() * (one->size() + 1) / 2), "their sum");
          const auto again = one->split(world.rank() < 2 ? 0 : -1, 0);
          if (world.rank() < 2) expect(again->direct() && sum(*again) == 3, "a part of those, on one host");
          conforms(tp);
          conforms(dp);

          // Their numbers tell groups of different hosts apart.
          std::uint64_t mine = tp.id(), ids[4];
          world.all_gather<std::int64_t>({reinterpret_cast<std::int64_t*>(&mine), 1},
                                         {reinterpret_cast<std::int64_t*>(ids), 4});
          expect(ids[0] == ids[1] && ids[2] == ids[3] && ids[0] != ids[2], "a group's number");

          for (const std::int64_t rows : {3, 400}) {
            const auto x = made<float, Shard<0>, Shard<1>>(mesh, {rows, 300}, rows);
            expect(is_moved(x, redistribute<Shard<1>, Shard<0>>(x), rows), "a swap of both axes");
            expect(is_moved(x, redistribute<On<"tp", Replicate>>(x), rows), "within hosts");
            expect(is_moved(x, redistribute<On<"dp", Replicate>>(x), rows), "across hosts");
          }
        }) == "");
}

TEST_CASE("what goes through a host's memory is what was sent: of any size, from the arena and from elsewhere") {
  CHECK(run_on_hosts({0, 0, 0, 1}, [](const ProcessCommunicator& c) {
          for (const std::size_t n : {1u, 1024u, 1025u, 70'000u, 1'000'000u}) {
            const detail::Buffer arena(n * sizeof(float));
            std::vector<float> own(n), all(4 * n);
            for (const bool shared : {true, false}) {
              float* const mine = shared ? arena.as<float>() : own.data();
              for (std::size_t i = 0; i < n; ++i) mine[i] = static_cast<float>(c.rank()) + static_cast<float>(i % 1000);
              c.all_gather<float>({mine, n}, all);
              std::fill_n(mine, n, -1.0f);  // what was sent is free
              c.barrier();
              expect_each(
                  4 * n,
                  [&](std::size_t i) { return all[i] == static_cast<float>(i / n) + static_cast<float>(i % n % 1000); },
                  "what each rank sent");
            }
          }
        }) == "");
}

TEST_CASE("a rank that dies is named on its host and on the others, in groups within and across") {
  for (const int victim : {1, 3})
    for (const bool within : {true, false}) {
      const std::string name = "rank " + std::to_string(victim);
      CHECK(patiently([&] {
              return said_by(start_on_hosts({0, 0, 1, 1}, [&](const ProcessCommunicator& world) {
                               const auto part = *world.split(within ? world.rank() / 2 : 0, 0);
                               if (world.rank() == victim) {
                                 world.barrier();
                                 std::this_thread::sleep_for(20ms);
                                 kill(getpid(), SIGKILL);
                               }
                               const auto start = std::chrono::steady_clock::now();
                               const std::string said = thrown_by([&] {
                                 world.with_axis("tp").barrier();
                                 for (;;) part.with_axis("tp").barrier();
                               });
                               expect_within(2s, start, "the death is told");
                               expect_text(said, "PeerFailedError: shardwise::barrier on axis 'tp': " + name + " died");
                               expect_text(thrown_by([&] { world.barrier(); }), name + " died");
                             }).last_words());
            }) == name + ": killed by signal 9\n");
    }
}

TEST_CASE("what ranks of several hosts call differently, who aborts, leaves early or does not come") {
  CHECK(run_on_hosts({0, 0, 1, 1}, [](const ProcessCommunicator& c) {
          std::vector<float> x(64), y(64);
          const std::string said = thrown_by([&] {
            if (c.rank() == 1) return c.all_reduce<float>(x, y, ReduceOp::max);
            c.all_reduce<float>(x, y, ReduceOp::sum);
          });
          expect_text(said, "MismatchError: shardwise: ranks call different operations: ");
          expect_text(said, "rank 1 calls all_reduce(max) of float [64]");
        }) == "");
  CHECK(run_on_hosts({0, 0, 1, 1}, [](const ProcessCommunicator& c) {
          const auto part = *c.split(c.rank() / 2, 0);
          if (c.rank() == 3) {
            c.barrier();
            return c.abort("out of cheese");
          }
          expect_text(thrown_by([&] {
                        for (;;) c.barrier();
                      }),
                      "rank 3 aborted: out of cheese");
          expect_text(thrown_by([&] { part.barrier(); }), "rank 3 aborted: out of cheese");
        }) == "");
  CHECK(run_on_hosts({0, 0, 1, 1}, [](const ProcessCommunicator& c) {
          if (c.rank() == 1) return c.barrier();
          expect_text(thrown_by([&] {
                        for (;;) c.barrier();
                      }),
                      "rank 1 left early");
        }) == "");
  SharedBetween<std::atomic<int>> told;
  CHECK(run_on_hosts({0, 0, 1}, [&](const ProcessCommunicator& c) {
          c.barrier();
          meet_all();
          if (c.rank() == 1) return wait_until([&] { return *told == 2; }, "the others' deadline");
          const std::string said = thrown_by([&] { c.with_deadline(200ms).broadcast<float>({}, 1); });
          ++*told;
          expect_text(
              said, "TimeoutError: shardwise::broadcast of float [0] from rank 1: deadline of 200 ms passed on rank ");
          expect_text(said, "; missing: rank ");
        }) == "");
}

TEST_CASE(
    "a rank that waits within its host sees what another host's rank sent it meanwhile, and the other way round") {
  for (const Hosts& hosts : {Hosts{0, 0, 1, 1}, Hosts{0, 1, 0, 1}, Hosts{0, 1, 1, 0}})
    CHECK(run_on_hosts(hosts, [](const ProcessCommunicator& c) {
            const std::string said = thrown_by([&] {
              c.barrier();
              std::vector<float> x(12);
              // Rank 3 waits for rank 2, which waits for rank 0.
              c.rank() == 0 ? c.recv<float>(x, 3) : c.broadcast<float>(x, 0);
              for (int i = 0; i < 10; ++i) c.barrier();
            });
            expect_text(said, "MismatchError: ");
            expect_text(said, "rank 0 calls recv of float [12] from rank 3, rank 3 calls broadcast");
          }) == "");
}

TEST_CASE("roots that disagree so that nobody sends are found while all wait, within a host and between hosts") {
  for (const Hosts& hosts : {Hosts{0, 0, 0, 0}, Hosts{0, 1, 2, 3}, Hosts{0, 0, 1, 1}, Hosts{0, 1, 1, 0}})
    CHECK(run_on_hosts(hosts, [](const ProcessCommunicator& c) {
            std::vector<float> x(5);
            const std::string said = thrown_by([&] { c.broadcast<float>(x, c.rank() == 0 ? 1 : 0); });
            expect_text(said, "MismatchError: ");
            expect_text(said, "rank 0 calls broadcast of float [5] from rank 1");
            expect_text(said, " calls broadcast of float [5] from rank 0");
          }) == "");
}

TEST_CASE("a rank that is stopped and comes back late harms nobody") {
  CHECK(patiently([] {
          SharedBetween<std::atomic<int>> given_up;
          ForkedRanks ranks = start_on_hosts({0, 0, 1}, [&](const ProcessCommunicator& c) {
            std::vector<float> large(100'000, static_cast<float>(c.rank())), all(3 * large.size());
            c.barrier();
            meet_all();
            if (c.rank() == 1) {
              raise(SIGSTOP);
              return expect_text(thrown_by([&] { c.all_gather<float>(large, all); }), "TimeoutError: ");
            }
            const auto deadline = missed(1s);
            const std::string said = thrown_by([&] { c.with_deadline(deadline).all_gather<float>(large, all); });
            expect_text(said, "TimeoutError: shardwise::all_gather of float [100000]: deadline of " +
                                  std::to_string(deadline.count()) + " ms passed on rank ");
            expect_missing(said, "rank 1");
            std::vector<detail::Buffer> again;  // the memory that was offered
            for (int i = 0; i < 4; ++i) again.emplace_back(large.size() * sizeof(float));
            for (const detail::Buffer& b : again) std::fill_n(b.as<float>(), large.size(), -1.0f);
            given_up->fetch_add(1);
            std::this_thread::sleep_for(300ms);
            for (const detail::Buffer& b : again)
              expect_each(large.size(), [&](std::size_t i) { return b.as<float>()[i] == -1.0f; }, "memory of its own");
          });
          ranks.until([&] { return given_up->load() == 2; }, "the others' deadline");
          wait_until([&] { return ranks.send(1, SIGCONT), ranks.ended(1); }, "the end of the stopped rank");
          return said_by(ranks.last_words());
        }) == "");
}
