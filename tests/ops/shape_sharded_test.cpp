// sum, mean, reshape, transpose and concat on a mesh against one device; how pending gradients add up.
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;
using S2 = Shard<2>;
using P = Partial<>;
using A = Partial<Avg>;

SHARDWISE_TEST_RANKS("DT-24 sum and mean: pending where the dimension is sharded, also of empty shards", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto total = [](const auto& v) { return sum(v); };
  const auto average = [](const auto& v) { return mean(v); };
  const auto rows = [](const auto& v) { return sum<0>(v); };
  const auto columns = [](const auto& v) { return mean<-1>(v); };
  for (const std::int64_t n : {8, 5, 2}) {
    const auto x = values({n, 3}, 1);
    check_sharded<At<R>>(mesh, "R", total, x);
    check_sharded<At<S0>>(mesh, "P(sum)", total, x);
    check_sharded<At<S1>>(mesh, "P(sum)", average, x);
    check_sharded<At<P>>(mesh, "P(sum)", total, x);
    check_sharded<At<A>>(mesh, "P(avg)", average, x);
    check_sharded<At<S0>>(mesh, "P(sum)", rows, x);
    check_sharded<At<S1>>(mesh, "S(0)", rows, x);
    check_sharded<At<S0>>(mesh, "S(0)", columns, x);
    check_sharded<At<S1>>(mesh, "P(sum)", columns, x);
    check_sharded<At<P>>(mesh, "P(sum)", columns, x);
  }
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
  check_sharded<At<S0, S1>>(grid, "P(sum)P(sum)", total, values({5, 3}, 1));
  check_sharded<At<S0, S1>>(grid, "P(sum)S(0)", rows, values({5, 3}, 1));
}

SHARDWISE_TEST_RANKS("VW-1 reshapes that leave every element on its rank", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto flat = [](const auto& v) { return reshape(v, {-1, 3}); };
  check_sharded<At<S0>>(mesh, "S(0)", flat, values({8, 2, 3}, 1));
  check_sharded<At<S0>>(mesh, "S(0)", flat, values({4, 5, 3}, 1));
  check_sharded<At<R>>(mesh, "R", flat, values({5, 2, 3}, 1));
  check_sharded<At<P>>(mesh, "P(sum)", flat, values({5, 2, 3}, 1));
  check_sharded<At<S0>>(
      mesh, "S(0)", [](const auto& v) { return reshape(v, {2, 3, 1}); }, values({2, 3}, 1));  // empty shards
  // Features into heads: the shard goes with the heads.
  const auto heads = [](const auto& v) {
    if constexpr (std::remove_cvref_t<decltype(v)>::distributed)
      return reshape<S1>(v, {3, 4, 2});
    else
      return reshape(v, {3, 4, 2});
  };
  check_sharded<At<S1>>(mesh, "S(1)", heads, values({3, 8}, 1));
  const auto back = [](const auto& v) { return reshape(v, {3, 8}); };
  check_sharded<At<S1>>(mesh, "S(1)", back, values({3, 4, 2}, 1));
  // The batch of attention scores.
  const auto batch = [](const auto& v) { return reshape(v, {8, 5, 5}); };
  check_sharded<At<S0>>(mesh, "S(0)", batch, values({4, 2, 5, 5}, 1));
}

SHARDWISE_TEST_RANKS("VW-2 VW-4 a reshape that would move elements is refused, on all ranks alike", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto uneven =
      distribute_tensor<S0>(values({6, 2}, 1), mesh);  // 2, 2, 2, 0 rows: 4, 4, 4, 0 elements; 12 split as 3, 3, 3, 3
  CHECK_THROWS_AS(reshape(uneven, {12}), ShapeError);
  const auto columns = distribute_tensor<S1>(values({8, 16}, 1), mesh);
  CHECK_THROWS_AS(reshape(columns, {8, 2, 8}), ShapeError);
  CHECK_NOTHROW(reshape<S1>(columns, {8, 4, 4}));
  CHECK_THROWS_AS(reshape<S0>(columns, {128}), ShapeError);
  CHECK_THROWS_AS(reshape(columns, {8, 15}), ShapeError);
}

SHARDWISE_TEST_RANKS("concat along a dimension that is not sharded; pending sums stay", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto join = [](const auto& a, const auto& b) { return concat<0>(a, b); };
  const auto a = values({2, 5}, 1), b = values({3, 5}, 2);
  check_sharded<At<R>, At<R>>(mesh, "R", join, a, b);
  check_sharded<At<S1>, At<S1>>(mesh, "S(1)", join, a, b);
  check_sharded<At<P>, At<P>>(mesh, "P(sum)", join, a, b);
}

SHARDWISE_TEST_RANKS(
    "three products that share a replicated input leave one pending gradient, settled by one all_reduce", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = values({3, 5}, 1), w = values({5, 6}, 2);
  auto dense = clone(x);
  dense.requires_grad(true);
  backward(sum(matmul(dense, w) + matmul(dense, w) * 2.0 + matmul(dense, w)));

  auto shared = distribute_tensor<R>(x, mesh);
  shared.requires_grad(true);
  const auto columns = distribute_tensor<S1>(w, mesh);
  const CommDebugMode comm;
  backward(sum(matmul(shared, columns) + matmul(shared, columns) * 2.0 + matmul(shared, columns)));
  CHECK(comm.total_count() == 0);
  CHECK_THROWS_AS(shared.grad(), Error);
  settle(shared);
  CHECK(comm.total_count() == 1);
  CHECK(comm.count(Collective::all_reduce) == 1);
  check_close(shared.grad().to_local(), dense.grad());
}

SHARDWISE_TEST_RANKS("a replicated contribution joins a pending sum once, before or after it", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = values({3, 5}, 1), w = values({5, 6}, 2), v = values({5, 6}, 3);
  for (const bool first : {true, false}) {
    auto dense = clone(x);
    dense.requires_grad(true);
    backward(sum(matmul(dense, w)) + sum(matmul(dense, v)));
    auto shared = distribute_tensor<R>(x, mesh);
    shared.requires_grad(true);
    const auto columns = distribute_tensor<S1>(w, mesh);
    const auto whole = distribute_tensor<R>(v, mesh);
    const auto pending = [&] { return redistribute<R>(sum(matmul(shared, columns))); };
    const auto complete = [&] { return sum(matmul(shared, whole)); };
    if (first) {
      const auto a = pending();
      backward(a + complete());
    } else {
      const auto b = complete();
      backward(pending() + b);
    }
    settle(shared);
    check_close(shared.grad().to_local(), dense.grad());
  }
}

SHARDWISE_TEST_RANKS(
    "a pending sum that leaves with its gradient declared pending is refused where an operator needs it whole", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<S0>(values({5, 3}, 1), mesh);
  x.requires_grad(true);
  const auto left = to_local<Partial<>>(sum(x));
  CHECK_THROWS_AS(backward(left), Error);
}
