// embedding on a mesh against one device: tables sharded by columns and by rows, also uneven ones.
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;

namespace {
const auto lookup = [](const auto& w, const auto& i) { return embedding(w, i); };
}  // namespace

SHARDWISE_TEST_RANKS("EM-1 a table sharded by columns: no communication in either direction", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  check_sharded<At<S1>, At<R>>(mesh, "S(2)", lookup, values({17, 12}, 1), indices({5, 4}, 17, 1));
  check_sharded<At<S1>, At<R>>(mesh, "S(3)", lookup, values({21, 11}, 1), indices({6, 7, 6}, 21, 2));
  check_sharded<At<S1>, At<R>>(mesh, "S(1)", lookup, values({15, 14}, 1), indices({4}, 15, 3));
  check_sharded<At<S1>, At<R>>(mesh, "S(1)", lookup, values({15, 14}, 1), indices({34}, 15, 4));
  check_sharded<At<S1>, At<R>>(mesh, "S(1)", lookup, values({5, 2}, 1), indices({3}, 5, 4));
}

SHARDWISE_TEST_RANKS("EM-2 a table sharded by rows, which need not divide: every rank gives the rows that it holds",
                     4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  check_sharded<At<S0>, At<R>>(mesh, "P(sum)", lookup, values({16, 22}, 1), indices({5, 12}, 16, 1));
  check_sharded<At<S0>, At<R>>(mesh, "P(sum)", lookup, values({13, 22}, 1), indices({6, 7, 6}, 13, 2));
  check_sharded<At<S0>, At<R>>(mesh, "P(sum)", lookup, values({15, 14}, 1), indices({34}, 15, 3));
  check_sharded<At<S0>, At<R>>(mesh, "P(sum)", lookup, values({2, 3}, 1), indices({4}, 2, 3));
}

SHARDWISE_TEST_RANKS("embedding with a replicated table, sharded indices, and on two axes", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto table = values({7, 6}, 1);
  check_sharded<At<R>, At<R>>(mesh, "R", lookup, table, indices({5, 3}, 7, 1));
  check_sharded<At<R>, At<S0>>(mesh, "S(0)", lookup, table, indices({5, 3}, 7, 1));
  check_sharded<At<R>, At<S1>>(mesh, "S(1)", lookup, table, indices({5, 3}, 7, 1));
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
  check_sharded<At<R, S1>, At<S0, R>>(grid, "S(0)S(2)", lookup, table, indices({5, 3}, 7, 1));
  check_sharded<At<R, S0>, At<S0, R>>(grid, "S(0)P(sum)", lookup, table, indices({5, 3}, 7, 1));
  check_sharded<At<S0, S0>, At<R, R>>(grid, "P(sum)P(sum)", lookup, table, indices({5, 3}, 7, 1));
}

SHARDWISE_TEST_RANKS("EM-3 gathering what a row-sharded table gives is exactly one all_reduce", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto table = values({7, 6}, 1);
  const auto index = indices({5}, 7, 1);
  const auto w = distribute_tensor<S0>(table, mesh);
  const auto i = distribute_tensor<R>(index, mesh);
  const CommDebugMode comm;
  const auto y = redistribute<R>(embedding(w, i));
  CHECK(comm.total_count() == 1);
  CHECK(comm.count(Collective::all_reduce) == 1);
  CHECK(equal(y.to_local(), embedding(table, index)));
}

SHARDWISE_TEST_RANKS("EM-5 two row-sharded tables used before either result is reduced do not disturb each other", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto one = values({13, 6}, 1), two = values({9, 6}, 2);
  const auto f = [](const auto& a, const auto& b, const auto& i, const auto& j) {
    return embedding(a, i) + embedding(b, j);
  };
  check_sharded<At<S0>, At<S0>, At<R>, At<R>>(mesh, "P(sum)", f, one, two, indices({5}, 13, 1), indices({5}, 9, 2));
}

SHARDWISE_TEST_RANKS("an index outside the vocabulary is an Error on every rank, whichever holds the row", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto w = distribute_tensor<S0>(values({7, 6}, 1), mesh);
  auto index = indices({5}, 7, 1);
  index.data()[2] = 7;
  CHECK_THROWS_AS(embedding(w, distribute_tensor<R>(index, mesh)), Error);
}
