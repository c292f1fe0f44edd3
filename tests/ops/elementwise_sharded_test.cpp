// Elementwise operators on a mesh, every combination of placements that their rules allow, against one device.
#include <shardwise/ops/elementwise.hpp>
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

const auto add = [](const auto& a, const auto& b) { return a + b; };
const auto sub = [](const auto& a, const auto& b) { return a - b; };
const auto mul = [](const auto& a, const auto& b) { return a * b; };
const auto quotient = [](const auto& a, const auto& b) { return a / b; };

template <class PA, class PB, class Mesh, class X, class Y>
void check_all_four(const Mesh& mesh, const std::string& expected, const X& a, const Y& b) {
  check_sharded<PA, PB>(mesh, expected, add, a, b);
  check_sharded<PA, PB>(mesh, expected, sub, a, b);
  check_sharded<PA, PB>(mesh, expected, mul, a, b);
  check_sharded<PA, PB>(mesh, expected, quotient, a, b);
}

template <class Mesh>
void check_arithmetic(const Mesh& mesh) {
  for (const std::int64_t rows : {8, 5, 2, 0}) {
    const auto a = values({rows, 3}, 1), b = values({rows, 3}, 2, 0.5, 2);
    const auto line = values({3}, 3, 0.5, 2);
    check_all_four<At<R>, At<R>>(mesh, "R", a, b);
    check_all_four<At<S0>, At<S0>>(mesh, "S(0)", a, b);
    check_all_four<At<S1>, At<S1>>(mesh, "S(1)", a, b);
    check_all_four<At<S0>, At<R>>(mesh, "S(0)", a, line);   // a bias is repeated along the sharded rows
    check_all_four<At<S1>, At<S0>>(mesh, "S(1)", a, line);  // and follows sharded columns
    check_sharded<At<R>, At<S0>>(mesh, "S(0)", sub, line, a);
  }
}

}  // namespace

SHARDWISE_TEST_RANKS(
    "arithmetic of values: equal shards, and a shard of a dimension that the other does not have, 4 ranks", 4) {
  check_arithmetic(init_device_mesh<"tp">(world, {4}));
}
SHARDWISE_TEST_RANKS("arithmetic of values, 3 ranks", 3) { check_arithmetic(init_device_mesh<"tp">(world, {3})); }

SHARDWISE_TEST_RANKS("PW-2 PW-3 pending sums and averages: what is linear stays pending", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto a = values({5, 3}, 1), b = values({5, 3}, 2, 0.5, 2);
  const auto line = values({3}, 3, 0.5, 2);
  const auto one = values(Shape<0>{}, 3, 0.5, 2);
  check_sharded<At<P>, At<P>>(mesh, "P(sum)", add, a, b);
  check_sharded<At<P>, At<P>>(mesh, "P(sum)", sub, a, b);
  check_sharded<At<P>, At<P>>(mesh, "P(sum)", add, a, line);
  check_sharded<At<A>, At<A>>(mesh, "P(avg)", sub, a, b);
  check_sharded<At<P>, At<R>>(mesh, "P(sum)", mul, a, b);
  check_sharded<At<P>, At<R>>(mesh, "P(sum)", mul, line, b);
  check_sharded<At<R>, At<P>>(mesh, "P(sum)", mul, a, b);
  check_sharded<At<P>, At<R>>(mesh, "P(sum)", quotient, a, b);
  check_sharded<At<A>, At<R>>(mesh, "P(avg)", quotient, a, one);
  check_sharded<At<A>, At<R>>(mesh, "P(avg)", mul, a, b);
  check_sharded<At<P>, At<R>>(mesh, "P(sum)", mul, a, one);
  check_sharded<At<P>>(mesh, "P(sum)", [](const auto& x) { return x * 3.0; }, a);
  check_sharded<At<P>>(mesh, "P(sum)", [](const auto& x) { return 3.0 * x / 2.0; }, a);
  check_sharded<At<A>>(mesh, "P(avg)", [](const auto& x) { return x / 4; }, a);
}

SHARDWISE_TEST_RANKS("PW-1 a replicated operand joins a pending sum once, where the source says so", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto a = values({5, 3}, 1), b = values({1, 3}, 2);
  check_sharded<At<P>, At<R>>(
      mesh, "P(sum)",
      [](const auto& x, const auto& y) {
        if constexpr (std::remove_cvref_t<decltype(x)>::distributed)
          return x + redistribute<Partial<>>(y);
        else
          return x + y;
      },
      a, b);
}

SHARDWISE_TEST_RANKS("PW-4 negation: a sum stays, a pending maximum becomes a pending minimum", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto negated = [](const auto& x) { return -x; };
  const auto x = values({5, 3}, 1);
  check_sharded<At<P>>(mesh, "P(sum)", negated, x);
  check_sharded<At<A>>(mesh, "P(avg)", negated, x);
  check_sharded<At<S0>>(mesh, "S(0)", negated, x);
  const auto mine = values({5, 3}, static_cast<std::uint32_t>(world.rank()));
  const auto most = from_local<Partial<Max>>(mine, mesh);
  const CommDebugMode comm;
  const auto least = -most;
  CHECK(comm.total_count() == 0);
  static_assert(std::is_same_v<std::remove_const_t<decltype(-least)>, std::remove_const_t<decltype(most)>>);
  CHECK(detail::to_string(least.placements) == "P(min)");
  CHECK(equal(least.full_tensor(), -most.full_tensor()));
}

SHARDWISE_TEST_RANKS("scalars and functions keep the placement, on uneven and empty shards", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t rows : {8, 5, 2}) {
    const auto x = values({rows, 3}, 1, 0.5, 2);
    const auto f = [](const auto& v) { return 2.0 / sqrt(log(exp(v)) + 1.0) - tanh(sigmoid(1.0 - v)); };
    const auto g = [](const auto& v) {
      return relu(gelu(v) * silu(v) - 0.5) + gelu(v, {.approximate = Approximate::tanh});
    };
    check_sharded<At<R>>(mesh, "R", f, x);
    check_sharded<At<S0>>(mesh, "S(0)", f, x);
    check_sharded<At<S1>>(mesh, "S(1)", g, x);
    check_sharded<At<R>>(mesh, "R", g, x);
  }
}

SHARDWISE_TEST_RANKS("two axes follow their rules apart", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto a = values({5, 3}, 1), b = values({5, 3}, 2, 0.5, 2);
  const auto line = values({3}, 3, 0.5, 2);
  check_all_four<At<S0, S1>, At<S0, S1>>(mesh, "S(0)S(1)", a, b);
  check_all_four<At<S0, R>, At<R, R>>(mesh, "S(0)R", a, line);
  check_all_four<At<S0, S1>, At<R, S0>>(mesh, "S(0)S(1)", a, line);
  check_sharded<At<S0, P>, At<S0, R>>(mesh, "S(0)P(sum)", mul, a, b);
  check_sharded<At<P, S1>, At<R, S1>>(mesh, "P(sum)S(1)", quotient, a, b);
  check_sharded<At<P, P>, At<P, P>>(mesh, "P(sum)P(sum)", add, a, b);
  check_sharded<At<S0, S0>, At<S0, S0>>(mesh, "S(0)S(0)", mul, a, b);
}

SHARDWISE_TEST_RANKS("a sharded dimension is not repeated: a ShapeError on every rank alike", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto a = distribute_tensor<S0>(values({5, 3}, 1), mesh);
  const auto b = distribute_tensor<S0>(values({1, 3}, 1), mesh);
  CHECK_THROWS_AS(a + b, ShapeError);
}

SHARDWISE_TEST_RANKS("operands on different meshes are an Error", 4) {
  const auto one = init_device_mesh<"tp">(world, {4});
  const auto x = zeros<float, Replicate, Replicate>(init_device_mesh<"dp", "tp">(world, {2, 2}), {2});
  const auto y = zeros<float, Replicate, Replicate>(init_device_mesh<"dp", "tp">(world, {4, 1}), {2});
  CHECK_THROWS_AS(x + y, Error);
  CHECK_NOTHROW(zeros<float, Replicate>(one, {2}) + zeros<float, Replicate>(one, {2}));
}
