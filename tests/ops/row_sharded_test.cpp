// softmax, norms, cross entropy, embedding and dropout on a mesh against one device.
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;
using S2 = Shard<2>;
using P = Partial<>;

SHARDWISE_TEST_RANKS("softmax and log_softmax along a whole dimension", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = values({5, 3, 2}, 1, -2, 2);
  const auto last = [](const auto& v) { return softmax(v); };
  const auto middle = [](const auto& v) { return log_softmax<1>(v); };
  check_sharded<At<S0>>(mesh, "S(0)", last, x);
  check_sharded<At<S1>>(mesh, "S(1)", last, x);
  check_sharded<At<R>>(mesh, "R", last, x);
  check_sharded<At<S0>>(mesh, "S(0)", middle, x);
  check_sharded<At<S2>>(mesh, "S(2)", middle, x);
}

SHARDWISE_TEST_RANKS("layer_norm and rms_norm of sharded rows: gradients of weight and bias are pending", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto weight = values({3}, 2, 0.5, 2), bias = values({3}, 3);
  const auto layer = [](const auto& v, const auto& w, const auto& b) { return layer_norm(v, w, b); };
  const auto rms = [](const auto& v, const auto& w) { return rms_norm(v, w); };
  for (const std::int64_t rows : {8, 5, 2}) {
    const auto x = values({rows, 2, 3}, 1, -2, 2);
    check_sharded<At<S0>, At<R>, At<R>>(mesh, "S(0)", layer, x, weight, bias);
    check_sharded<At<S1>, At<R>, At<R>>(mesh, "S(1)", layer, x, weight, bias);
    check_sharded<At<R>, At<R>, At<R>>(mesh, "R", layer, x, weight, bias);
    check_sharded<At<S0>, At<R>>(mesh, "S(0)", rms, x, weight);
    check_sharded<At<S0>>(mesh, "S(0)", [](const auto& v) { return layer_norm(v); }, x);
    check_sharded<At<S1>>(mesh, "S(1)", [](const auto& v) { return rms_norm(v, {.eps = 0.1}); }, x);
  }
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
  check_sharded<At<S0, S1>, At<R, R>, At<R, R>>(grid, "S(0)S(1)", layer, values({3, 5, 3}, 1, -2, 2), weight, bias);
}

namespace {

// Some rows are ignored; 1 of 5 ranks' worth of rows is empty for few rows.
Tensor<std::int64_t, 1> targets(std::int64_t n) {
  auto t = indices({n}, 4, 3);
  for (std::int64_t i = 1; i < n; i += 3) t.data()[i] = -100;
  return t;
}

}  // namespace

SHARDWISE_TEST_RANKS("cross_entropy of logits sharded along the batch, with replicated and with sharded targets", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const CrossEntropyOptions<double> options{.weight = values({4}, 9, 0.5, 2), .label_smoothing = 0.1};
  const auto mean = [&](const auto& x, const auto& t) { return cross_entropy(x, t, options); };
  const auto sum = [&](const auto& x, const auto& t) { return cross_entropy<Reduction::sum>(x, t, options); };
  const auto none = [&](const auto& x, const auto& t) { return cross_entropy<Reduction::none>(x, t); };
  for (const std::int64_t rows : {8, 5, 1}) {
    const auto x = values({rows, 4}, 1, -2, 2);
    const auto t = targets(rows);
    check_sharded<At<R>, At<R>>(mesh, "R", mean, x, t);
    check_sharded<At<S0>, At<R>>(mesh, "P(sum)", mean, x, t);
    check_sharded<At<R>, At<R>>(mesh, "R", sum, x, t);
    check_sharded<At<S0>, At<R>>(mesh, "P(sum)", sum, x, t);
    check_sharded<At<S0>, At<S0>>(mesh, "P(sum)", sum, x, t);
    check_sharded<At<R>, At<R>>(mesh, "R", none, x, t);
    check_sharded<At<S0>, At<R>>(mesh, "S(0)", none, x, t);
    check_sharded<At<S0>, At<S0>>(mesh, "S(0)", none, x, t);
  }
  const auto deep = values({5, 4, 3}, 1, -2, 2);
  const auto t = indices({5, 3}, 4, 3);
  check_sharded<At<S0>, At<R>>(mesh, "P(sum)", mean, deep, t);
  check_sharded<At<S0>, At<S0>>(mesh, "S(0)", none, deep, t);
  const auto ignored = full<std::int64_t>({5}, -100);
  check_sharded<At<S0>, At<R>>(mesh, "P(sum)", mean, values({5, 4}, 1), ignored);  // NaN, with a zero gradient
}

SHARDWISE_TEST_RANKS("cross_entropy on two axes, targets sharded on one of them", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto x = values({7, 4}, 1, -2, 2);
  const auto t = targets(7);
  const auto sum = [&](const auto& v, const auto& c) { return cross_entropy<Reduction::sum>(v, c); };
  const auto none = [&](const auto& v, const auto& c) { return cross_entropy<Reduction::none>(v, c); };
  check_sharded<At<S0, S0>, At<S0, R>>(mesh, "P(sum)P(sum)", sum, x, t);
  check_sharded<At<S0, S0>, At<S0, S0>>(mesh, "S(0)S(0)", none, x, t);
  check_sharded<At<S0, R>, At<R, R>>(
      mesh, "P(sum)R", [](const auto& v, const auto& c) { return cross_entropy(v, c); }, x, t);
  check_sharded<At<S0, R>, At<S0, R>>(mesh, "S(0)R", none, x, t);
}

SHARDWISE_TEST_RANKS("cross_entropy refuses a target that is no class on every rank, whoever holds the row", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = distribute_tensor<S0>(values({5, 4}, 1), mesh);
  auto t = indices({5}, 4, 3);
  t.data()[4] = 4;
  CHECK_THROWS_AS(cross_entropy(x, distribute_tensor<R>(t, mesh)), Error);
  CHECK_THROWS_AS(cross_entropy<Reduction::sum>(x, distribute_tensor<R>(t, mesh)), Error);
  CHECK_THROWS_AS(cross_entropy<Reduction::none>(x, distribute_tensor<R>(t, mesh)), Error);
}

SHARDWISE_TEST_RANKS("dropout masks by global index: the one-device mask, whatever the placement", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto f = [](const auto& v) {
    manual_seed(11);
    return dropout(v, 0.5);
  };
  const auto x = values({5, 7}, 1);
  check_sharded<At<R, R>>(mesh, "RR", f, x);
  check_sharded<At<S0, R>>(mesh, "S(0)R", f, x);
  check_sharded<At<S1, S0>>(mesh, "S(1)S(0)", f, x);
}
