// Elementwise operators on one device: gradients against central differences, values against plain loops.
#include <cmath>

#include <shardwise/nn/visit.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/reduction.hpp>

#include "redistribute/values.hpp"
#include "support/gradients.hpp"

using namespace shardwise;
using namespace test;

TEST_CASE("gradients of arithmetic with equal and with broadcast shapes") {
  const auto all = [](const auto& a, const auto& b) {
    check_gradient([](const auto& x, const auto& y) { return x + y; }, a, b);
    check_gradient([](const auto& x, const auto& y) { return x - y; }, a, b);
    check_gradient([](const auto& x, const auto& y) { return x * y; }, a, b);
    check_gradient([](const auto& x, const auto& y) { return x / y; }, a, b);
  };
  all(values({2, 3}, 1), values({2, 3}, 2, 0.5, 2));
  all(values({2, 3}, 1), values({3}, 2, 0.5, 2));         // trailing dimensions
  all(values({3}, 1), values({2, 3}, 2, 0.5, 2));
  all(values({2, 1, 3}, 1), values({4, 1}, 2, 0.5, 2));   // sizes of 1 on both sides
  all(values({2, 3}, 1), values(Shape<0>{}, 2, 0.5, 2));  // a rank-0 tensor
}

TEST_CASE("one tensor as both operands gets both gradients") {
  check_gradient([](const auto& x) { return x + x; }, values({2, 3}, 1));
  check_gradient([](const auto& x) { return x * x - x; }, values({2, 3}, 1));
  check_gradient([](const auto& x) { return x / (x * x + 1.0); }, values({2, 3}, 1));
}

TEST_CASE("gradients of arithmetic with scalars on both sides") {
  const auto x = values({2, 3}, 1, 0.5, 2);
  check_gradient([](const auto& v) { return v + 2.0; }, x);
  check_gradient([](const auto& v) { return 2.0 + v; }, x);
  check_gradient([](const auto& v) { return v - 2; }, x);
  check_gradient([](const auto& v) { return 2 - v; }, x);
  check_gradient([](const auto& v) { return v * 3.0; }, x);
  check_gradient([](const auto& v) { return 3 * v; }, x);
  check_gradient([](const auto& v) { return v / 4.0; }, x);
  check_gradient([](const auto& v) { return 4.0 / v; }, x);
  check_gradient([](const auto& v) { return -v; }, x);
}

TEST_CASE("gradients of functions of one tensor") {
  const auto x = values({3, 5}, 3, -3, 3);
  check_gradient([](const auto& v) { return relu(v); }, x);
  check_gradient([](const auto& v) { return gelu(v); }, x);
  check_gradient([](const auto& v) { return gelu(v, {.approximate = Approximate::tanh}); }, x);
  check_gradient([](const auto& v) { return silu(v); }, x);
  check_gradient([](const auto& v) { return sigmoid(v); }, x);
  check_gradient([](const auto& v) { return tanh(v); }, x);
  check_gradient([](const auto& v) { return exp(v); }, x);
  const auto positive = values({3, 5}, 4, 0.5, 3);
  check_gradient([](const auto& v) { return log(v); }, positive);
  check_gradient([](const auto& v) { return sqrt(v); }, positive);
}

TEST_CASE("the gradient of dropout is that of its mask") {
  check_gradient(
      [](const auto& v) {
        manual_seed(5);
        return dropout(v, 0.4);
      },
      values({4, 5}, 3));
  manual_seed(5);
  const auto x = ones<float>({2000});
  const auto y = dropout(x, 0.25);
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) {
    CHECK((y.data()[i] == 0.0f || y.data()[i] == 1.0f / 0.75f));
    kept += y.data()[i] != 0.0f ? 1 : 0;
  }
  CHECK(kept > 1400);
  CHECK(kept < 1600);
  CHECK(!equal(dropout(x, 0.25), y));  // the next draw
  CHECK(equal(dropout(x, 0.0), x));
  CHECK(equal(dropout(x, 1.0), zeros<float>({2000})));
  CHECK_THROWS_AS(dropout(x, 1.5), Error);
}

TEST_CASE("shapes that do not broadcast are a ShapeError that names both") {
  try {
    (void)(values({2, 3}, 1) + values({4}, 1));
    FAIL("no exception");
  } catch (const ShapeError& e) {
    const std::string message = e.what();
    CHECK(message.find("[2, 3] and [4] do not fit") != std::string::npos);
  }
}

TEST_CASE("empty tensors and zero-sized dimensions pass through") {
  check_gradient([](const auto& v, const auto& w) { return gelu(v * w) + 1.0; }, values({0, 3}, 1), values({3}, 2));
}

TEST_CASE("two losses that share a value: the second run would lose its gradient there, and says so") {
  auto x = full<float>({2}, 3.0f);
  x.requires_grad(true);
  const auto shared = x * 2.0f;
  const auto first = sum(shared);
  const auto second = sum(shared * shared);
  const auto other = x * 5.0f;
  const auto right = shared * 3.0f;
  const auto third = sum(other * 2.0f + right);  // the latest runs first: `other` has its gradient when `shared` is met
  backward(first);
  CHECK(x.grad().data()[0] == 2.0f);
  CHECK(contains(thrown<Error>([&] { backward(second); }), "add the losses up"));
  // What had reached a value before the exception is forgotten: its tape, which has not run, runs from nothing.
  CHECK(contains(thrown<Error>([&] { backward(third); }), "add the losses up"));
  zero_grad({{"x", DType::float32, x.impl()}});
  backward(sum(other));
  CHECK(x.grad().data()[0] == 5.0f);
  // At once it is right.
  const auto again = x * 2.0f;
  zero_grad({{"x", DType::float32, x.impl()}});
  backward(sum(again) + sum(again * again));
  CHECK(x.grad().data()[0] == 26.0f);
}

TEST_CASE("what is asked of an undefined tensor is an error") {
  Tensor<float, 2> x({2, 3});
  const auto y = std::move(x);
  for (const Tensor<float, 2>& undefined : {x, Tensor<float, 2>()}) {  // NOLINT: moved from
    CHECK(!undefined.defined());
    CHECK(contains(thrown<Error>([&] { (void)undefined.shape(); }), "default-constructed, or moved from"));
    CHECK(contains(thrown<Error>([&] { (void)undefined.data(); }), "default-constructed, or moved from"));
    CHECK(contains(thrown<Error>([&] { (void)(undefined * 2.0f); }), "default-constructed, or moved from"));
    CHECK(contains(thrown<Error>([&] { (void)sum(undefined); }), "default-constructed, or moved from"));
    CHECK(contains(thrown<Error>([&] { (void)undefined.grad(); }), "default-constructed, or moved from"));
  }
  x = y;
  CHECK(x.shape() == Shape<2>{2, 3});
}
