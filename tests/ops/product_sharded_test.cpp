// matmul and linear on a mesh, every combination of placements that their rules allow, against one device.
#include <shardwise/ops/matmul.hpp>
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

namespace {

const auto product = [](const auto& a, const auto& b) { return matmul(a, b); };
const auto layer = [](const auto& x, const auto& w, const auto& b) { return linear(x, w, b); };
const auto layer_without_bias = [](const auto& x, const auto& w) { return linear(x, w); };

// Sizes that divide by 4, that do not, and that leave ranks empty; the inner one may be 0.
template <class Check>
void for_sizes(Check check) {
  check(12, 8, 4);
  check(5, 6, 7);
  check(2, 3, 1);
  check(3, 0, 2);
}

template <class Mesh>
void check_matmul(const Mesh& mesh) {
  for_sizes([&](std::int64_t m, std::int64_t k, std::int64_t n) {
    const auto a = values({m, k}, 1), b = values({k, n}, 2);
    check_sharded<At<R>, At<R>>(mesh, "R", product, a, b);
    check_sharded<At<S0>, At<R>>(mesh, "S(0)", product, a, b);
    check_sharded<At<R>, At<S1>>(mesh, "S(1)", product, a, b);
    check_sharded<At<S1>, At<S0>>(mesh, "P(sum)", product, a, b);
    check_sharded<At<P>, At<R>>(mesh, "P(sum)", product, a, b);
    check_sharded<At<R>, At<P>>(mesh, "P(sum)", product, a, b);
    check_sharded<At<A>, At<R>>(mesh, "P(avg)", product, a, b);
  });
}

template <class Mesh>
void check_linear(const Mesh& mesh) {
  for_sizes([&](std::int64_t m, std::int64_t k, std::int64_t n) {
    const auto x = values({m, k}, 1), w = values({n, k}, 2);
    const auto b = values({n}, 3);
    check_sharded<At<R>, At<R>, At<R>>(mesh, "R", layer, x, w, b);
    check_sharded<At<S0>, At<R>, At<R>>(mesh, "S(0)", layer, x, w, b);
    check_sharded<At<R>, At<S0>, At<S0>>(mesh, "S(1)", layer, x, w, b);
    check_sharded<At<S1>, At<S1>, At<R>>(mesh, "P(sum)", layer, x, w, b);
    check_sharded<At<P>, At<R>, At<R>>(mesh, "P(sum)", layer, x, w, b);
    check_sharded<At<A>, At<R>, At<R>>(mesh, "P(avg)", layer, x, w, b);
  });
}

}  // namespace

SHARDWISE_TEST_RANKS("MM-1 MM-3 MM-4 MM-7 matmul of all placements that fit, also with fewer rows than ranks", 4) {
  check_matmul(init_device_mesh<"tp">(world, {4}));
}
SHARDWISE_TEST_RANKS("matmul of all placements that fit, 3 ranks", 3) {
  check_matmul(init_device_mesh<"tp">(world, {3}));
}

SHARDWISE_TEST_RANKS(
    "MM-1 MM-2 linear of all placements that fit: the bias follows the columns, and counts once in a pending sum", 4) {
  check_linear(init_device_mesh<"tp">(world, {4}));
}
SHARDWISE_TEST_RANKS("linear of all placements that fit, 3 ranks", 3) {
  check_linear(init_device_mesh<"tp">(world, {3}));
}

SHARDWISE_TEST_RANKS("MM-6 MM-8 linear of rank 3: columns go last, a sharded batch stays", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = values({1, 7, 6}, 1);
  const auto w = values({5, 6}, 2);
  const auto b = values({5}, 3);
  check_sharded<At<R>, At<S0>, At<S0>>(mesh, "S(2)", layer, x, w, b);
  check_sharded<At<R>, At<S0>>(mesh, "S(2)", layer_without_bias, x, w);
  check_sharded<At<S2>, At<S1>, At<R>>(mesh, "P(sum)", layer, x, w, b);
  check_sharded<At<S1>, At<R>, At<R>>(mesh, "S(1)", layer, x, w, b);
  check_sharded<At<S0>, At<R>>(mesh, "S(0)", layer_without_bias, x, w);
  const auto line = values({6}, 1);
  check_sharded<At<R>, At<S0>, At<S0>>(mesh, "S(0)", layer, line, w, b);
  check_sharded<At<S0>, At<S1>, At<R>>(mesh, "P(sum)", layer, line, w, b);
}

SHARDWISE_TEST_RANKS("MM-5 MM-11 UT-13 two axes: rows on one, columns or the inner dimension on the other", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto a = values({5, 6}, 1), b = values({6, 3}, 2);
  check_sharded<At<S0, R>, At<R, S1>>(mesh, "S(0)S(1)", product, a, b);
  check_sharded<At<S0, S1>, At<R, S0>>(mesh, "S(0)P(sum)", product, a, b);
  check_sharded<At<S1, S1>, At<S0, S0>>(mesh, "P(sum)P(sum)", product, a, b);
  check_sharded<At<S0, S0>, At<R, R>>(mesh, "S(0)S(0)", product, a, b);
  check_sharded<At<P, R>, At<R, P>>(mesh, "P(sum)P(sum)", product, a, b);
  const auto w = values({3, 6}, 2);
  const auto bias = values({3}, 3);
  check_sharded<At<S0, R>, At<R, S0>, At<R, S0>>(mesh, "S(0)S(1)", layer, a, w, bias);
  check_sharded<At<S0, S1>, At<R, S1>, At<R, R>>(mesh, "S(0)P(sum)", layer, a, w, bias);
  check_sharded<At<S1, S1>, At<S1, S1>, At<R, R>>(mesh, "P(sum)P(sum)", layer, a, w, bias);
}

SHARDWISE_TEST_RANKS("MM-4 stacks of products of all placements that fit: a leading dimension sharded alike stays", 4) {
  const auto check = [](const auto& mesh) {
    for (const std::int64_t batch : {4, 5, 2}) {
      const auto a = values({batch, 5, 6}, 1), b = values({batch, 6, 3}, 2);
      check_sharded<At<R>, At<R>>(mesh, "R", product, a, b);
      check_sharded<At<S0>, At<S0>>(mesh, "S(0)", product, a, b);
      check_sharded<At<S1>, At<R>>(mesh, "S(1)", product, a, b);
      check_sharded<At<R>, At<S2>>(mesh, "S(2)", product, a, b);
      check_sharded<At<S2>, At<S1>>(mesh, "P(sum)", product, a, b);
      check_sharded<At<P>, At<R>>(mesh, "P(sum)", product, a, b);
      check_sharded<At<R>, At<A>>(mesh, "P(avg)", product, a, b);
    }
  };
  check(init_device_mesh<"tp">(world, {4}));
}

SHARDWISE_TEST_RANKS("MM-4 stacks of rank 4, batch on one axis and heads, rows or the inner dimension on the other",
                     4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  using S3 = Shard<3>;
  const auto a = values({3, 2, 5, 6}, 1), b = values({3, 2, 6, 4}, 2);
  check_sharded<At<S0, S1>, At<S0, S1>>(mesh, "S(0)S(1)", product, a, b);
  check_sharded<At<S0, S2>, At<S0, R>>(mesh, "S(0)S(2)", product, a, b);
  check_sharded<At<S1, S3>, At<S1, S2>>(mesh, "S(1)P(sum)", product, a, b);
}

SHARDWISE_TEST_RANKS("MM-11 two axes of which one has one rank", 4) {
  const auto a = values({5, 6}, 1), b = values({6, 3}, 2);
  check_sharded<At<S0, R>, At<R, S1>>(init_device_mesh<"dp", "tp">(world, {4, 1}), "S(0)S(1)", product, a, b);
  check_sharded<At<S0, R>, At<R, S1>>(init_device_mesh<"dp", "tp">(world, {1, 4}), "S(0)S(1)", product, a, b);
}

SHARDWISE_TEST_RANKS("MM-9 transpose moves the shard with its dimension and leaves terms pending", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = values({5, 6}, 1);
  const auto turned = [](const auto& v) { return transpose<0, 1>(v); };
  check_sharded<At<S0>>(mesh, "S(1)", turned, x);
  check_sharded<At<S1>>(mesh, "S(0)", turned, x);
  check_sharded<At<P>>(mesh, "P(sum)", turned, x);
  check_sharded<At<R>>(mesh, "R", turned, x);
  check_sharded<At<S0>>(mesh, "S(0)", [](const auto& v) { return transpose<0, 0>(v); }, values({5}, 1));
  check_sharded<At<S2>>(mesh, "S(0)", [](const auto& v) { return transpose<0, -1>(v); }, values({2, 3, 6}, 1));
}
