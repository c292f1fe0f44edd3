// The memory that a move takes beside its input and its output, by the account of the allocator: what docs/memory.md states.
#include <doctest/doctest.h>

#include <cstdint>
#include <optional>

#include <shardwise/core.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/as_partial.hpp>
#include <shardwise/redistribute/async.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/reads_peers.hpp"

using namespace shardwise;
using test::reads_peers;

namespace {

constexpr std::int64_t n = 512;  // n x n floats: far above what is staged

template <class... P, class Mesh>
auto made(const Mesh& mesh, std::int64_t rows = n) {
  auto x = detail::make_tensor<float, 2, Distributed<Mesh, P...>>(detail::Extents(Shape<2>{rows, n}), mesh);
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = 1;
  return x;
}

// The peak of `move()` beyond what was held before, and what it gave.
struct Extra {
  std::int64_t peak;
  std::int64_t given;
  std::int64_t beside() const { return peak - given; }
};
template <class Move>
Extra extra_of(Move move) {
  reset_peak_memory_stats();
  const std::int64_t before = memory_allocated();
  const auto y = move();
  return {max_memory_allocated() - before, static_cast<std::int64_t>(y.bytes())};
}

// Bytes beside input and output: none.
#define TAKES_NOTHING(move)                             \
  do {                                                  \
    const Extra extra = extra_of([&] { return move; }); \
    CHECK(extra.given > 0);                             \
    CHECK(extra.beside() == 0);                         \
  } while (false)

}  // namespace

SHARDWISE_TEST_RANKS("the account: what is held, what was held at most, views not at all", 2) {
  const std::int64_t before = memory_allocated();
  {
    const Tensor<float, 2> x({10, 10});
    const auto same = x;
    CHECK(memory_allocated() - before == 400);
    reset_peak_memory_stats();
    CHECK(max_memory_allocated() == memory_allocated());
    {
      const Tensor<double, 1> y({100});
    }
    CHECK(memory_allocated() - before == 400);
    CHECK(max_memory_allocated() - before == 1200);
    float memory[4] = {};
    const auto view = Tensor<float, 1>::view(memory, {4});
    CHECK(memory_allocated() - before == 400);
  }
  CHECK(memory_allocated() == before);
}

SHARDWISE_TEST_RANKS("a move on one axis takes its output and nothing else", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t rows : {std::int64_t{4}, n}) {  // staged, and straight from peer memory
    const auto r = made<Replicate>(mesh, rows);
    const auto s = made<Shard<0>>(mesh, rows);
    const auto p = made<Partial<>>(mesh, rows);
    const auto mean = made<Partial<Avg>>(mesh, rows);
    const auto most = made<Partial<Max>>(mesh, rows);
    TAKES_NOTHING(redistribute<Shard<1>>(r));
    TAKES_NOTHING(redistribute<Partial<>>(r));
    TAKES_NOTHING(redistribute<Replicate>(s));
    TAKES_NOTHING(redistribute<Shard<1>>(s));
    TAKES_NOTHING(redistribute<Partial<>>(s));
    TAKES_NOTHING(redistribute<Replicate>(p));
    TAKES_NOTHING(redistribute<Shard<0>>(p));
    TAKES_NOTHING(redistribute<Replicate>(mean));
    TAKES_NOTHING(redistribute<Shard<1>>(most));
    TAKES_NOTHING(as_partial<Max>(r));
    CHECK(extra_of([&] { return redistribute<Shard<0>>(s); }).peak == 0);  // it is itself
    CHECK(extra_of([&] { return as_partial<Avg>(r); }).peak == 0);
  }
}

SHARDWISE_TEST_RANKS("so does a move on several axes: nothing lies between", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  mesh.group(3);
  const auto swapped = made<Shard<0>, Shard<1>>(mesh);
  const auto split = made<Shard<0>, Shard<0>>(mesh);
  const auto sum = made<Partial<>, Partial<>>(mesh);
  const auto mixed = made<Partial<>, Shard<0>>(mesh);
  TAKES_NOTHING((redistribute<Shard<1>, Shard<0>>(swapped)));
  TAKES_NOTHING((redistribute<Replicate, Replicate>(split)));
  TAKES_NOTHING((redistribute<Replicate, Shard<0>>(split)));
  TAKES_NOTHING((redistribute<Shard<0>, Replicate>(sum)));
  TAKES_NOTHING((redistribute<Replicate, Replicate>(sum)));
  TAKES_NOTHING((redistribute<Shard<1>, Replicate>(mixed)));
}

SHARDWISE_TEST_RANKS("block-cyclic parts are moved without a buffer too", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto s = made<Shard<0>>(mesh);
  const auto cyclic = made<BlockCyclic<1, 16>>(mesh);
  TAKES_NOTHING((redistribute<BlockCyclic<1, 16>>(s)));
  TAKES_NOTHING(redistribute<Shard<0>>(cyclic));
}

SHARDWISE_TEST_RANKS(
    "a move to another mesh takes nothing, but a number per rank of a replicated source read from outside", 4) {
  if (!reads_peers(world)) return;
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto turned = init_device_mesh<"r">(world, {4}, {.ranks = {2, 3, 1, 0}});
  const auto first = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
  const auto split = made<Shard<0>, Shard<1>>(grid);
  const auto sum = made<Partial<>, Shard<0>>(grid);
  const auto whole = made<Replicate>(first);
  TAKES_NOTHING(redistribute<Shard<0>>(split, turned));
  TAKES_NOTHING(redistribute<Replicate>(split, turned));
  TAKES_NOTHING(redistribute<Shard<1>>(sum, turned));
  const Extra extra = extra_of([&] { return redistribute<Shard<0>>(whole, turned); });
  CHECK(extra.beside() == (first.is_member() ? 0 : 3 * 8));  // loads of two rows, and the row chosen
}

SHARDWISE_TEST_RANKS("redistribute_into takes nothing", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t rows : {std::int64_t{4}, n}) {
    const auto s = made<Shard<0>>(mesh, rows);
    const auto p = made<Partial<>>(mesh, rows);
    auto columns = made<Shard<1>>(mesh, rows);
    auto whole = made<Replicate>(mesh, rows);
    reset_peak_memory_stats();
    const std::int64_t before = memory_allocated();
    redistribute_into(s, columns);
    redistribute_into(s, whole);
    redistribute_into(p, whole);
    redistribute_into(p, columns);
    CHECK(max_memory_allocated() == before);
  }
}

SHARDWISE_TEST_RANKS("a joint move takes its outputs, a list of addresses, and a copy of small inputs", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const std::int64_t lists = 2 * 4 * static_cast<std::int64_t>(sizeof(void*));
  const auto joint = [&](std::int64_t rows) {
    const auto x = made<Shard<0>>(mesh, rows);
    const auto y = made<Partial<>>(mesh, rows);
    reset_peak_memory_stats();
    const std::int64_t before = memory_allocated();
    const auto [a, b] = redistribute_all(to<Replicate>(x), to<Shard<1>>(y));
    return max_memory_allocated() - before - static_cast<std::int64_t>(a.bytes() + b.bytes());
  };
  const std::int64_t inputs = n / 4 * n * 4 + n * n * 4;  // processes bring theirs together in one block
  const std::int64_t taken = joint(n);
  CHECK((taken == lists || taken == lists + inputs));
  CHECK(joint(4) == lists + n * 4 + 4 * n * 4);  // 1 + 4 rows of floats
}

SHARDWISE_TEST_RANKS("a move in two halves keeps its input while others may read it, and has its output from wait() on",
                     4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const std::int64_t before = memory_allocated();
  std::optional x = made<Shard<0>>(mesh);
  const auto input = static_cast<std::int64_t>(x->bytes());
  reset_peak_memory_stats();
  {
    const auto handle = redistribute_async<Replicate>(*x);
    x.reset();
    CHECK(memory_allocated() - before == input);  // no output yet; the input is still there
    const auto y = handle.wait();
    handle.wait_for_readers();
    CHECK(memory_allocated() - before == static_cast<std::int64_t>(y.bytes()));  // the input is gone
    CHECK(max_memory_allocated() - before == input + static_cast<std::int64_t>(y.bytes()));
  }
  CHECK(memory_allocated() == before);
}

SHARDWISE_TEST_RANKS("the backward of a move takes the gradient of its input and nothing else", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = made<Shard<0>>(mesh);
  x.requires_grad(true);
  const auto y = redistribute<Shard<1>>(x);
  const auto grad = made<Shard<1>>(mesh);
  reset_peak_memory_stats();
  const std::int64_t before = memory_allocated();
  backward(y, grad);
  CHECK(max_memory_allocated() - before == static_cast<std::int64_t>(x.bytes()));
}
