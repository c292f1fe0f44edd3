// Moves, joint moves and distribute_tensor between ranks that only send messages: values, that no more is sent than is needed, and what
// memory they take beside it.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <utility>

#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/other_mesh.hpp>
#include <shardwise/tensor/factories.hpp>

#include "gloo/on_hosts.hpp"
#include "redistribute/made.hpp"

using namespace shardwise;
using namespace test;

namespace {

std::int64_t payload_sent = 0;  // by this process

class CountingTransport final : public detail::Transport {
 public:
  explicit CountingTransport(std::shared_ptr<detail::Transport> inner) : inner_(std::move(inner)) {}
  void exchange(const detail::MessageHeader& header, std::span<const detail::Outgoing> out,
                std::span<const detail::Incoming> in, Clock::time_point until, detail::PackFunction pack,
                detail::UnpackFunction unpack) override {
    for (const detail::Outgoing& o : out) payload_sent += static_cast<std::int64_t>(o.bytes);
    inner_->exchange(header, out, in, until, pack, unpack);
  }
  void close() noexcept override { inner_->close(); }
  void departed(int peer) noexcept override { inner_->departed(peer); }

 private:
  std::shared_ptr<detail::Transport> inner_;
};

std::shared_ptr<detail::Transport> connect_and_count(int rank, const std::vector<bool>& reaches,
                                                     detail::KeyValueStore& store, std::chrono::milliseconds deadline) {
  return std::make_shared<CountingTransport>(detail::connect_over_gloo(rank, reaches, store, deadline));
}

template <class F>
std::int64_t sent_by(F f) {
  payload_sent = 0;
  f();
  return std::exchange(payload_sent, 0);
}

// Bytes of the account at the peak of move(), beyond what was held before and what it gives.
template <class F>
std::int64_t beside(F move) {
  reset_peak_memory_stats();
  const std::int64_t before = memory_allocated();
  const auto y = move();
  return max_memory_allocated() - before - static_cast<std::int64_t>(y.bytes());
}

// Bytes that move `sent` besides what is needed: a part of a joint message begins at a whole line.
constexpr std::int64_t padding = 64 * 3 * 4;

}  // namespace

TEST_CASE("joint moves over messages give what the oracle says, and send each rank what it takes") {
  CHECK(run_on_hosts({0, 1, 2, 3}, [](const ProcessCommunicator& world) {
          const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
          mesh.group(3);
          for (const std::int64_t rows : {0, 3, 64, 301}) {
            const auto swap = made<float, Shard<0>, Shard<1>>(mesh, {rows, 77}, rows);
            const auto sum = made<double, Partial<>, Partial<>>(mesh, {rows, 33}, rows);
            const auto mean = made<float, Partial<Avg>, Partial<Max>>(mesh, {rows, 20}, rows);
            const auto cyclic = made<float, Shard<0>, Shard<1>>(mesh, {rows, 40}, rows);
            expect(std::get<0>(redistribute_all(to<Shard<1>, Shard<0>>(swap))).size() >= 0, "one alone");
            const auto [a, b, c, d] =
                redistribute_all(to<Shard<1>, Shard<0>>(swap), to<Replicate, Replicate>(sum),
                                 to<Shard<0>, Replicate>(mean), to<BlockCyclic<0, 3>, Shard<1>>(cyclic));
            expect(is_moved(swap, a, rows), "a swap");
            expect(is_moved(sum, b, rows), "a sum");
            expect(is_moved(mean, c, rows), "a mean of maxima");
            expect(equal(redistribute<Shard<0>, Shard<1>>(d).to_local(), cyclic.to_local()), "there and back");
          }
        }) == "");
  CHECK(run_on_hosts(
            {0, 1, 2, 3},
            [](const ProcessCommunicator& world) {
              const auto mesh = init_device_mesh<"tp">(world, {4});
              const auto x = made<float, Shard<0>>(mesh, {400, 400});
              const auto y = made<double, Shard<1>>(mesh, {80, 40});
              const auto z = made<float, Partial<>>(mesh, {400, 16});
              const std::int64_t sent = sent_by([&] {
                const auto [a, b, c] = redistribute_all(to<Shard<1>>(x), to<Shard<0>>(y), to<Replicate>(z));
                expect(is_moved(x, a) && is_moved(y, b) && is_moved(z, c), "three moves");
              });
              const std::int64_t needed = 3 * (100 * 100 * 4 + 20 * 10 * 8 + 2 * 100 * 16 * 4);
              expect(sent >= needed && sent <= needed + padding,
                     "sent " + std::to_string(sent) + " of " + std::to_string(needed));
            },
            &connect_and_count) == "");
}

TEST_CASE("blocks of several chunks are packed, sent and unpacked to where they belong") {
  CHECK(run_on_hosts({0, 1, 2, 3}, [](const ProcessCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {4});
          const auto rows = made<float, Shard<0>>(mesh, {801, 803});  // 160 KB a block
          const auto columns = made<float, Shard<1>>(mesh, {801, 803});
          const auto sum = made<float, Partial<>>(mesh, {801, 803});
          expect(is_moved(rows, redistribute<Shard<1>>(rows)), "packed by who sends");
          expect(is_moved(columns, redistribute<Shard<0>>(columns)), "unpacked by who receives");
          expect(is_moved(columns, redistribute<Replicate>(columns)), "unpacked, everywhere");
          expect(is_moved(rows, redistribute<BlockCyclic<1, 4>>(rows)), "both");
          expect(is_moved(sum, redistribute<Shard<1>>(sum)), "summed");
        }) == "");
}

TEST_CASE("block-cyclic parts and other meshes: each rank is sent what it takes, once") {
  CHECK(run_on_hosts(
            {0, 1, 2, 3},
            [](const ProcessCommunicator& world) {
              const auto mesh = init_device_mesh<"tp">(world, {4});
              const auto sends = [](std::int64_t needed, const std::string& what, auto f) {
                const std::int64_t sent = sent_by(f);
                expect(sent == needed, what + ": sent " + std::to_string(sent) + " of " + std::to_string(needed));
              };
              const auto x = made<float, Shard<0>>(mesh, {64, 64});
              sends(3 * 16 * 16 * 4, "columns, dealt", [&] { redistribute<BlockCyclic<1, 4>>(x); });
              sends(3 * 4 * 64 * 4, "rows, dealt", [&] { redistribute<BlockCyclic<0, 4>>(x); });
              const auto y = made<float, BlockCyclic<1, 4>>(mesh, {64, 64});
              sends(3 * 16 * 16 * 4, "columns, collected", [&] { redistribute<Shard<0>>(y); });
              sends(3 * 64 * 16 * 4, "columns, everywhere", [&] { redistribute<Replicate>(y); });
              const auto z = made<float, Partial<>>(mesh, {64, 64});
              sends(3 * 64 * 16 * 4, "a sum, dealt", [&] { redistribute<BlockCyclic<1, 4>>(z); });

              const auto front = init_device_mesh<"tp">(world, {2}, {.ranks = {0, 1}});
              const auto back = init_device_mesh<"tp">(world, {2}, {.ranks = {2, 3}});
              const bool in_front = world.rank() < 2;
              const auto half = redistribute<Shard<0>>(x, front);
              sends(in_front ? 32 * 64 * 4 : 0, "to the others", [&] { redistribute<Shard<1>>(half, back); });
              const auto all = redistribute<Replicate>(x, front);
              sends(in_front ? 32 * 64 * 4 : 0, "of copies", [&] { redistribute<Shard<0>>(all, back); });
            },
            &connect_and_count) == "");
}

TEST_CASE("a move over messages takes its output; beside it, sums take the terms, the others nothing that grows") {
  CHECK(run_on_hosts({0, 1, 2, 3}, [](const ProcessCommunicator& world) {
          const auto mesh = init_device_mesh<"tp">(world, {4});
          constexpr std::int64_t all = 512 * 512 * 4, lists = 16 * 1024;
          const auto takes = [](std::int64_t bytes, const std::string& what, auto move) {
            move();  // a connection gets its rooms
            const std::int64_t n = beside(move);
            expect(n >= bytes && n <= bytes + lists,
                   what + ": " + std::to_string(n) + " of " + std::to_string(bytes) + " bytes");
          };
          const auto rows = made<float, Shard<0>>(mesh, {512, 512});
          const auto columns = made<float, Shard<1>>(mesh, {512, 512});
          const auto sum = made<float, Partial<>>(mesh, {512, 512});
          takes(0, "rows to columns", [&] { return redistribute<Shard<1>>(rows); });
          takes(0, "columns to rows", [&] { return redistribute<Shard<0>>(columns); });
          takes(0, "rows, everywhere", [&] { return redistribute<Replicate>(rows); });
          takes(0, "columns, everywhere", [&] { return redistribute<Replicate>(columns); });
          takes(3 * all / 4, "a sum in rows", [&] { return redistribute<Shard<0>>(sum); });
          takes(3 * all / 4, "a sum everywhere", [&] { return redistribute<Replicate>(sum); });
          takes(3 * all / 16 + all / 4, "rows, dealt", [&] { return redistribute<BlockCyclic<1, 16>>(rows); });
        }) == "");
}

TEST_CASE("distribute_tensor over messages: from any rank, each rank gets its part and no more is sent") {
  CHECK(run_on_hosts(
            {0, 1, 2, 3},
            [](const ProcessCommunicator& world) {
              const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
              mesh.group(3);
              for (const std::int64_t rows : {0, 1, 5, 400}) {
                const Tensor<float, 2> whole = arange<float>({rows, 50});
                // The others have something else: only the source's is asked for.
                const Tensor<float, 2> mine = world.rank() == 3 ? whole : full<float>({rows, 50}, -1.0f);
                const DistributeOptions from{.src_data_rank = 1};
                std::int64_t bytes = 0;
                const auto check = [&](const auto& y, std::int64_t needed, std::int64_t sizes = 0) {
                  if (world.rank() != 3) needed = 0;
                  needed += sizes;
                  expect(bytes == needed, "sent " + std::to_string(bytes) + " of " + std::to_string(needed));
                  expect(equal(y.full_tensor(), whole), "the whole, from its parts");
                };
                const auto distribute = [&]<class... P>(P...) {
                  std::optional<DTensor<float, 2, std::decay_t<decltype(mesh)>, P...>> y;
                  bytes = sent_by([&] { y = distribute_tensor<P...>(mine, mesh, from); });
                  return *y;
                };
                const std::int64_t all = rows * 50 * 4;
                const auto s = distribute(Shard<0>(), Shard<1>());
                check(s, all - s.local_shape()[0] * s.local_shape()[1] * 4);
                const auto r = distribute(Replicate(), Shard<0>());
                check(r, 2 * all - r.size() * 4);
                const auto p =
                    distribute(Partial<>(), Shard<1>());  // the first of "dp" has the value, the others zeros
                check(p, all);
                const auto b = distribute(BlockCyclic<0, 3>(), Replicate());
                check(b, 2 * all - b.size() * 4);
                check(distribute(Replicate(), Replicate()), 3 * all, 3 * 8);  // everybody says what it has
              }
            },
            &connect_and_count) == "");
}
