// Products, sums and moves of elements on one device: gradients against central differences.
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/ops/shape.hpp>

#include "support/gradients.hpp"

using namespace shardwise;
using namespace test;

TEST_CASE("gradients of matmul of rank 2 and 3") {
  const auto product = [](const auto& a, const auto& b) { return matmul(a, b); };
  check_gradient(product, values({3, 4}, 1), values({4, 5}, 2));
  check_gradient(product, values({2, 3, 4}, 1), values({4, 5}, 2));
  check_gradient(product, values({1, 1}, 1), values({1, 1}, 2));
  check_gradient([](const auto& a) { return matmul(a, a); }, values({3, 3}, 1));
}

TEST_CASE("gradients of stacks of products: every matrix with its own") {
  const auto product = [](const auto& a, const auto& b) { return matmul(a, b); };
  check_gradient(product, values({2, 3, 4}, 1), values({2, 4, 5}, 2));
  check_gradient(product, values({2, 3, 1, 4}, 1), values({2, 3, 4, 2}, 2));
  check_gradient([](const auto& a) { return matmul(a, a); }, values({2, 3, 3}, 1));
  check_gradient(product, values({2, 3, 0}, 1), values({2, 0, 2}, 1));
  check_gradient(product, values({0, 3, 2}, 1), values({0, 2, 2}, 1));
  const auto a = values({2, 3, 4}, 1), b = values({2, 4, 5}, 2);
  const auto y = matmul(a, b);
  for (std::int64_t i = 0; i < 2; ++i)
    for (std::int64_t r = 0; r < 3; ++r)
      for (std::int64_t c = 0; c < 5; ++c) {
        double expected = 0;
        for (std::int64_t k = 0; k < 4; ++k) expected += a.data()[(i * 3 + r) * 4 + k] * b.data()[(i * 4 + k) * 5 + c];
        CHECK(std::fabs(y.data()[(i * 3 + r) * 5 + c] - expected) < 1e-14);
      }
}

TEST_CASE("gradients of linear of rank 1, 2 and 3, with and without a bias") {
  const auto with = [](const auto& x, const auto& w, const auto& b) { return linear(x, w, b); };
  const auto without = [](const auto& x, const auto& w) { return linear(x, w); };
  check_gradient(with, values({4}, 1), values({5, 4}, 2), values({5}, 3));
  check_gradient(with, values({3, 4}, 1), values({5, 4}, 2), values({5}, 3));
  check_gradient(with, values({2, 3, 4}, 1), values({5, 4}, 2), values({5}, 3));
  check_gradient(without, values({3, 4}, 1), values({5, 4}, 2));
  check_gradient(without, values({2, 3, 4}, 1), values({5, 4}, 2));
  const auto undefined = [](const auto& x, const auto& w) { return linear(x, w, Tensor<double, 1>()); };
  check_gradient(undefined, values({3, 4}, 1), values({5, 4}, 2));
}

TEST_CASE("an empty inner dimension gives zeros, or the bias, and gradients of no elements") {
  const auto a = values({3, 0}, 1), b = values({0, 2}, 1);
  CHECK(equal(matmul(a, b), zeros<double>({3, 2})));
  const auto y = linear(a, values({2, 0}, 1), ones<double>({2}));
  CHECK(equal(y, ones<double>({3, 2})));
  check_gradient([](const auto& p, const auto& q) { return matmul(p, q); }, a, b);
  check_gradient([](const auto& p, const auto& q) { return matmul(p, q); }, values({0, 3}, 1), values({3, 2}, 1));
}

TEST_CASE("gradients of sum and mean, of everything and along each dimension") {
  const auto x = values({2, 3, 4}, 1);
  check_gradient([](const auto& v) { return sum(v); }, x);
  check_gradient([](const auto& v) { return mean(v); }, x);
  check_gradient([](const auto& v) { return sum<0>(v); }, x);
  check_gradient([](const auto& v) { return sum<1>(v); }, x);
  check_gradient([](const auto& v) { return sum<-1>(v); }, x);
  check_gradient([](const auto& v) { return mean<0>(v); }, x);
  check_gradient([](const auto& v) { return mean<1>(v); }, x);
  check_gradient([](const auto& v) { return mean<2>(v); }, x);
  check_gradient([](const auto& v) { return sum(v); }, values(Shape<0>{}, 1));
  check_gradient([](const auto& v) { return sum<0>(v); }, values({5}, 1));
  CHECK(equal(sum<1>(values({2, 0, 3}, 1)), zeros<double>({2, 3})));
  CHECK(mean(zeros<double>({0})).item() != mean(zeros<double>({0})).item());  // NaN
}

TEST_CASE("gradients of reshape, transpose and concat") {
  const auto x = values({2, 3, 4}, 1);
  check_gradient([](const auto& v) { return reshape(v, {6, 4}); }, x);
  check_gradient([](const auto& v) { return reshape(v, {4, -1}); }, x);
  check_gradient([](const auto& v) { return reshape(v, Shape<1>{24}); }, x);
  check_gradient([](const auto& v) { return transpose<0, 1>(v); }, x);
  check_gradient([](const auto& v) { return transpose<0, -1>(v); }, x);
  check_gradient([](const auto& v) { return transpose<1, 1>(v); }, x);
  check_gradient([](const auto& a, const auto& b) { return concat<0>(a, b); }, x, values({1, 3, 4}, 2));
  check_gradient([](const auto& a, const auto& b, const auto& c) { return concat<1>(a, b, c); }, x,
                 values({2, 2, 4}, 2), values({2, 0, 4}, 3));
  check_gradient([](const auto& a) { return concat<-1>(a, a); }, x);
  CHECK(reshape(x, {24}).data() == x.data());
  CHECK(equal(transpose<0, 1>(values({2, 3}, 1)), reshape(transpose<0, 1>(values({2, 3}, 1)), {3, 2})));
  CHECK(transpose<0, 2>(x).data()[1] == x.data()[12]);
}

TEST_CASE("sizes that do not fit are a ShapeError") {
  const auto x = values({2, 3}, 1);
  CHECK_THROWS_AS(matmul(x, x), ShapeError);
  CHECK_THROWS_WITH_AS(
      matmul(values({2, 3, 4}, 1), values({3, 4, 5}, 1)),
      "shardwise::matmul: shapes [2, 3, 4] and [3, 4, 5] differ in the inner dimension or in a leading one",
      ShapeError);
  CHECK_THROWS_AS(matmul(values({2, 3, 4}, 1), values({2, 3, 5}, 1)), ShapeError);
  CHECK_THROWS_AS(linear(x, values({5, 4}, 1)), ShapeError);
  CHECK_THROWS_AS(linear(x, values({5, 3}, 1), values({4}, 1)), ShapeError);
  CHECK_THROWS_AS(reshape(x, {5}), ShapeError);
  CHECK_THROWS_AS(reshape(x, {-1, 4}), ShapeError);
  CHECK_THROWS_AS(reshape(x, {-1, -1}), ShapeError);
  CHECK_THROWS_AS(reshape(values({0}, 1), {-1, 0}), ShapeError);
  CHECK_THROWS_AS(concat<0>(x, values({2, 4}, 1)), ShapeError);
}
