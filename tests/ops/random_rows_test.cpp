// Random numbers on a mesh: nothing is communicated, replicas agree, shards differ, and all of it is the one-device tensor.
#include <shardwise/ops/embedding.hpp>
#include <shardwise/testing/doctest.hpp>

#include <algorithm>
#include <span>
#include <utility>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;

SHARDWISE_TEST_RANKS("RN-3 RN-8 a seed is set without communication, draws go on, and a new seed begins anew", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  CommDebugMode comm;
  const auto twice = [&](std::uint64_t seed) {
    manual_seed(seed);
    const auto a = randn<float, S0>(mesh, {13, 3});
    const auto b = randn<float, S0>(mesh, {13, 3});
    return std::pair(a, b);
  };
  const auto [a, b] = twice(42);
  const auto [c, d] = twice(42);
  const auto [e, f] = twice(55);
  CHECK(comm.total_count() == 0);
  CHECK(equal(a.to_local(), c.to_local()));
  CHECK(equal(b.to_local(), d.to_local()));
  if (a.size() > 0) {
    CHECK(!equal(a.to_local(), b.to_local()));
    CHECK(!equal(a.to_local(), e.to_local()));
    CHECK(!equal(b.to_local(), f.to_local()));
  }
  manual_seed(42);
  const auto dense = randn<float>({13, 3});
  CHECK(equal(a.full_tensor(), dense));
  CHECK(equal(b.full_tensor(), randn<float>({13, 3})));
}

SHARDWISE_TEST_RANKS("RN-4 RN-5 TR-2 replicas hold the same numbers, distinct shards others, before any seed is set",
                     8) {
  const auto mesh = init_device_mesh<"replicate", "shard", "tp">(world, {2, 2, 2});
  CommDebugMode comm;
  const auto x = rand<float, R, S0, S1>(mesh, {8, 8});
  CHECK(comm.total_count() == 0);
  const auto local = x.to_local();
  Tensor<float, 3> all({8, 4, 4});
  world.all_gather(std::span<const float>(local.data(), 16), std::span<float>(all.data(), 128));
  for (int r = 0; r < 8; ++r) {
    const bool same = std::equal(local.data(), local.data() + 16, all.data() + 16 * r);
    CHECK(same == (r % 4 == world.rank() % 4));
  }
}

SHARDWISE_TEST_RANKS("RN-9 stages with seeds of their own draw their own numbers", 4) {
  manual_seed(123 + static_cast<std::uint64_t>(world.rank()));
  const auto mine = rand<float>({16});
  Tensor<float, 2> all({4, 16});
  world.all_gather(std::span<const float>(mine.data(), 16), std::span<float>(all.data(), 64));
  for (int r = 0; r < 4; ++r)
    CHECK(std::equal(mine.data(), mine.data() + 16, all.data() + 16 * r) == (r == world.rank()));
  manual_seed(0);  // a rank that is a process goes on with the next case
}

SHARDWISE_TEST_RANKS("RN-10 dropout of a replicated tensor keeps the same elements on all ranks", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto y = dropout(distribute_tensor<R>(ones<float>({64}), mesh), 0.5).to_local();
  Tensor<float, 2> all({4, 64});
  world.all_gather(std::span<const float>(y.data(), 64), std::span<float>(all.data(), 256));
  for (int r = 0; r < 4; ++r) CHECK(std::equal(y.data(), y.data() + 64, all.data() + 64 * r));
  const auto kept = std::count(y.data(), y.data() + 64, 2.0f);
  CHECK(kept + std::count(y.data(), y.data() + 64, 0.0f) == 64);
  CHECK(kept > 10);
  CHECK(kept < 54);
}
