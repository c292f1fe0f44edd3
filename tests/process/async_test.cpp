// Moves in two halves between processes of one host: a late rank holds nobody back, what a rank posted outlives its handles, its
// group and its world, and failures are told as by exchanges.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/any.hpp>
#include <shardwise/redistribute/async.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/tensor/factories.hpp>

#include "process/host.hpp"
#include "redistribute/made.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

static_assert(PostingCommunicator<ProcessCommunicator> && PostingCommunicator<AnyCommunicator>);

namespace {

ProcessCommunicator communicator_of(const HostRank& mine) { return {mine.group, mine.rank, mine.host}; }

// Compiled for one kind of communicator: any.
template <class F>
std::string run_processes(int n, F f) {
  return run_on_host(n, [&](const HostRank& mine) { f(AnyCommunicator(communicator_of(mine))); });
}

using Count = SharedBetween<std::atomic<int>>;

}  // namespace

TEST_CASE("moves in two halves between processes give what the oracle says, the same at every wait") {
  CHECK(run_processes(4, [](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
          for (const std::int64_t rows : {0, 1, 5, 300}) {
            const auto a = made<float, Shard<0>, Shard<1>>(mesh, {rows, 257}, rows);
            const auto b = made<double, Partial<Avg>, Shard<0>>(mesh, {rows, 33}, rows);
            const auto first = redistribute_async<Shard<1>, Shard<0>>(a);
            const auto second = redistribute_async<Replicate, Replicate>(b);
            const auto third = redistribute_async<BlockCyclic<0, 2>, Shard<1>>(a);
            world.barrier();
            const auto back = redistribute_async<Shard<0>, Shard<1>>(third.wait());
            expect(is_moved(b, second.wait(), rows), "a mean on two axes");
            expect(is_moved(a, first.wait(), rows), "a swap on two axes");
            expect(equal(back.wait().to_local(), a.to_local()), "there and back");
            expect(first.wait().data() == first.wait().data(), "the same tensor at every wait");
          }
        }) == "");
}

TEST_CASE("a late process holds back neither the start nor the computation of the others") {
  Count computed, taken;
  CHECK(run_processes(4, [&](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {4});
          const auto x = made<float, Shard<0>>(mesh, {64, 200});
          // Each of these waits would fail if the other ranks could not go on without this one.
          if (world.rank() == 3) wait_until([&] { return computed->load() == 3; }, "the others compute");
          const auto handle = redistribute_async<Shard<1>>(x);
          computed->fetch_add(1);
          if (world.rank() == 3) {
            wait_until([&] { return taken->load() == 3; }, "the others take their part");
            expect(!handle.input_is_free(), "an input that this rank has not read");
          }
          expect(is_moved(x, handle.wait()), "the move");
          taken->fetch_add(1);
        }) == "");
}

TEST_CASE("what a process posted stays: its input is dropped, its handle, its group, or its world is over") {
  Count gone;
  CHECK(run_processes(4, [&](const AnyCommunicator& all) {
          for (const bool by_split : {false, true}) {
            const AnyCommunicator world = by_split ? *all.split(0, 0) : all;
            const auto mesh = init_device_mesh<"tp">(world, {4});
            const auto same = made<float, Shard<0>>(mesh, {64, 200});
            auto x = made<float, Shard<0>>(mesh, {64, 200});
            if (world.rank() < 2) {
              const std::int64_t size = x.size();
              redistribute_async<Shard<1>>(x);
              x = decltype(x)();
              std::vector<Tensor<float, 1>> others;  // they would get the block
              for (int i = 0; i < 8; ++i) others.push_back(full<float>({size}, -1.0f));
              gone->fetch_add(1);
            } else {
              wait_until([&] { return gone->load() == (by_split ? 4 : 2); }, "handles dropped");
              const auto handle = redistribute_async<Shard<1>>(x);
              expect(is_moved(same, handle.wait()), "the move");
              handle.wait_for_readers();
              expect(handle.input_is_free(), "an input that all have read");
            }
          }
        }) == "");

  ForkedStore store;
  Count over;
  CHECK(run_forked(3, [&](int rank) {
          std::int64_t size = 0;
          {
            const HostRank mine = meet(store, rank, 3);
            const auto mesh = init_device_mesh<"tp">(communicator_of(mine), {3});
            const auto x = made<float, Shard<0>>(mesh, {90, 100});
            size = x.size();
            const auto handle = redistribute_async<Replicate>(x);
            if (rank != 2) {
              wait_until([&] { return over->load() >= 1; }, "the end of a world");
              expect(is_moved(x, handle.wait()), "from a rank that has left");
              over->fetch_add(1);
            }
            mine.host->depart();
          }
          if (rank != 2) return;
          std::vector<Tensor<float, 1>> others;
          for (int i = 0; i < 8; ++i) others.push_back(full<float>({size}, -1.0f));
          over->fetch_add(1);
          wait_until([&] { return over->load() == 3; }, "what was left behind is read");
        }) == "");
}

TEST_CASE("memory of the caller's own is copied at the start") {
  CHECK(run_processes(3, [](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {3});
          std::vector<float> memory(4000);
          for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
          const auto x = from_local<Shard<0>>(Tensor<float, 2>::view(memory.data(), {40, 100}), mesh);
          const auto want = redistribute<Shard<1>>(x);
          world.barrier();
          const auto handle = redistribute_async<Shard<1>>(x);
          for (float& v : memory) v = -1;
          world.barrier();
          expect(equal(handle.wait().to_local(), want.to_local()), "the values at the start");
        }) == "");
}

TEST_CASE("a group in the memory of an earlier one of other ranks takes nothing for posted") {
  CHECK(run_processes(4, [](const AnyCommunicator& world) {
          for (int turn = 0; turn < 4; ++turn) {
            {
              const AnyCommunicator four = *world.split(0, 0);
              std::vector<float> large(8000, 1.0f);  // a message's bits, read as a mark, are beyond every number
              for (const int from : {0, 1, 2, 3}) {
                if (world.rank() == from) four.send<float>(large, (from + 1) % 4);
                if (world.rank() == (from + 1) % 4) four.recv<float>(large, from);
              }
              four.barrier();
            }
            world.barrier();
            const auto three = world.split(world.rank() < 3 ? 0 : -1, 0);
            if (three) {
              const auto mesh = init_device_mesh<"tp">(*three, {3});
              const auto x = made<float, Shard<0>>(mesh, {9, 9}, turn);
              if (three->rank() == 0) std::this_thread::sleep_for(20ms);
              expect(is_moved(x, redistribute_async<Replicate>(x).wait(), turn), "the move");
            }
            world.barrier();
          }
        }) == "");
}

TEST_CASE("a process that aborts, never starts, leaves or starts another move is told to those that wait") {
  Count over;
  CHECK(run_processes(3, [](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {3});
          const auto x = zeros<float, Shard<0>>(mesh, {30, 30});
          if (world.rank() == 1) return world.abort("out of cheese");
          const std::string said = thrown_by([&] {
            const auto handle = redistribute_async<Replicate>(x);
            const std::string first = thrown_by([&] { handle.wait(); }), second = thrown_by([&] { handle.wait(); });
            expect(first == second, "the same at every wait");
            redistribute_async<Replicate>(x);
          });
          expect_text(said, "PeerFailedError");
          expect_text(said, "all_gather of float [30, 30] on axis 'tp'");
          expect_text(said, "rank 1 aborted: out of cheese");
        }) == "");
  CHECK(run_processes(3, [&](const AnyCommunicator& world) {
          const auto deadline = missed(100ms);
          const int before = over->load();
          const auto mesh = init_device_mesh<"tp">(world.with_deadline(deadline), {3});
          const auto x = zeros<float, Partial<>>(mesh, {30, 30});
          meet_all();
          if (world.rank() == 1) return wait_until([&] { return over->load() == before + 2; }, "deadlines");
          const auto handle = redistribute_async<Replicate>(x);
          const std::string said = thrown_by([&] { handle.wait(); });
          over->fetch_add(1);
          expect_text(said, "TimeoutError: shardwise::all_reduce(sum) of float [30, 30] on axis 'tp': deadline of " +
                                std::to_string(deadline.count()) + " ms");
          expect_missing(said, "rank 1");
        }) == "");
  CHECK(run_processes(3, [](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {3});
          const auto x = zeros<float, Shard<0>>(mesh, {3, 3});
          if (world.rank() == 2) return;
          expect_text(thrown_by([&] { redistribute_async<Replicate>(x).wait(); }), "rank 2 left early");
        }) == "");
  CHECK(run_processes(3, [](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {3});
          const auto x = zeros<float, Shard<0>>(mesh, {30, 30});
          const auto y = zeros<double, Shard<0>>(mesh, {3, 3});
          const std::string said = thrown_by([&] {
            if (world.rank() == 1) {
              redistribute_async<Replicate>(y).wait();
            } else {
              redistribute_async<Shard<1>>(x).wait();
            }
          });
          expect_text(said, "MismatchError: shardwise: ranks call different operations on axis 'tp': rank 0 calls ");
          expect_text(said, "all_gather of double [3, 3]");
        }) == "");
}

TEST_CASE("random starts, waits, drops, delays and collectives between processes") {
  CHECK(run_processes(4, [](const AnyCommunicator& world) {
          const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
          std::mt19937 shared(7);  // equal on all ranks: what is started
          std::mt19937 own(static_cast<unsigned>(world.rank()) * 31 + 1);  // each rank's own: when it is waited for
          struct Open {
            std::int64_t salt;
            std::int64_t rows;
            AsyncTensor<DTensor<float, 2, std::decay_t<decltype(mesh)>, Shard<1>, Shard<0>>> swap;
          };
          std::vector<Open> open;
          const auto settle = [&](std::size_t i) {
            const Open& o = open[i];
            const auto x = made<float, Shard<0>, Shard<1>>(mesh, {o.rows, 60}, o.salt);
            if (own() % 4 != 0) expect(is_moved(x, o.swap.wait(), o.salt), "salt " + std::to_string(o.salt));
            open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
          };
          for (int turn = 0; turn < 100; ++turn) {
            const auto rows = static_cast<std::int64_t>(shared() % 100);
            open.push_back(
                {turn, rows,
                 redistribute_async<Shard<1>, Shard<0>>(made<float, Shard<0>, Shard<1>>(mesh, {rows, 60}, turn))});
            if (shared() % 8 == 0) world.barrier();
            if (own() % 16 == 0) std::this_thread::sleep_for(1ms);
            while (open.size() > own() % 6) settle(own() % open.size());
          }
          while (!open.empty()) settle(0);
        }) == "");
}
