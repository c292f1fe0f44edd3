// equal and allclose, which other tests rely on: each of their conditions by itself.
#include <complex>
#include <limits>

#include <doctest/doctest.h>

#include <shardwise/tensor/factories.hpp>

using namespace shardwise;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

Tensor<double, 1> one(double v) { return full<double>({1}, v); }

}  // namespace

TEST_CASE("equal looks at the shape and at every element, and NaN equals nothing") {
  CHECK(equal(arange<float>({2, 3}), arange<float>({2, 3})));
  CHECK(!equal(arange<float>({2, 3}), arange<float>({3, 2})));
  auto x = arange<float>({2, 3});
  x.data()[5] = 4;
  CHECK(!equal(x, arange<float>({2, 3})));
  CHECK(equal(zeros<float>({0, 3}), zeros<float>({0, 3})));
  CHECK(!equal(zeros<float>({0, 3}), zeros<float>({0, 2})));
  CHECK(!equal(one(not_a_number), one(not_a_number)));
  CHECK(equal(one(infinity), one(infinity)));
  CHECK(equal(one(0.0), one(-0.0)));
}

TEST_CASE("allclose: atol + rtol |b|, relative to the second operand") {
  CHECK(!allclose(arange<float>({2, 3}), arange<float>({3, 2})));
  CHECK(allclose(one(1.25), one(1), {.rtol = 0, .atol = 0.25}));
  CHECK(!allclose(one(1.25), one(1), {.rtol = 0, .atol = 0.125}));
  CHECK(allclose(one(5), one(4), {.rtol = 0.25, .atol = 0}));
  CHECK(!allclose(one(5), one(4), {.rtol = 0.125, .atol = 0}));
  CHECK(!allclose(one(5), one(4), {.rtol = 0.2, .atol = 0}));
  CHECK(allclose(one(4), one(5), {.rtol = 0.2, .atol = 0}));
  CHECK(allclose(one(-5), one(-4), {.rtol = 0.25, .atol = 0}));
  CHECK(!allclose(one(-5), one(4), {.rtol = 0.25, .atol = 0}));
  CHECK(allclose(one(1e6), one(1e6 + 1)));  // the defaults
  CHECK(!allclose(one(1e6), one(1e6 + 20)));
}

TEST_CASE("allclose of what is no number") {
  const Tolerance wide{.rtol = 1, .atol = 1};
  CHECK(allclose(one(infinity), one(infinity), wide));
  CHECK(!allclose(one(infinity), one(-infinity), wide));
  CHECK(!allclose(one(1), one(infinity), wide));
  CHECK(!allclose(one(infinity), one(1), wide));
  CHECK(!allclose(one(not_a_number), one(not_a_number), wide));
  CHECK(allclose(one(not_a_number), one(not_a_number), {.equal_nan = true}));
  CHECK(!allclose(one(not_a_number), one(1), {.rtol = 1, .atol = 1, .equal_nan = true}));
  CHECK(!allclose(one(1), one(not_a_number), {.rtol = 1, .atol = 1, .equal_nan = true}));
}

TEST_CASE("allclose of complex numbers looks at the distance in the plane") {
  const auto z = [](double re, double im) { return full<std::complex<double>>({1}, {re, im}); };
  CHECK(allclose(z(3, 4), z(0, 0), {.rtol = 0, .atol = 5}));
  CHECK(!allclose(z(3, 4), z(0, 0), {.rtol = 0, .atol = 4.5}));
  CHECK(allclose(z(3, 5), z(3, 4), {.rtol = 0.2, .atol = 0}));
  CHECK(!allclose(z(3, 5), z(3, 4), {.rtol = 0.19, .atol = 0}));
}
