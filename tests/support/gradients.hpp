// check_gradient: the gradient of an operator, as the tape computes it, against central differences in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include <doctest/doctest.h>

#include <shardwise/tensor/factories.hpp>

namespace test {

// Numbers that look random, the same on every machine and rank: in [low, high], none within 0.01 of zero (relu has no
// derivative there).
template <class T = double, std::size_t R>
shardwise::Tensor<T, R> values(const shardwise::Shape<R>& shape, std::uint32_t seed, double low = -1, double high = 1) {
  shardwise::Tensor<T, R> x(shape);
  std::uint32_t state = seed * 2654435761u + 12345u;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    double v = 0;
    do {
      state = state * 1664525u + 1013904223u;
      v = low + (high - low) * (static_cast<double>(state >> 8) / 16777216.0);
    } while (std::fabs(v) < 0.01);
    x.data()[i] = static_cast<T>(v);
  }
  return x;
}
template <class T = double, std::size_t R>
shardwise::Tensor<T, R> values(const std::int64_t (&shape)[R], std::uint32_t seed, double low = -1, double high = 1) {
  return values<T>(shardwise::detail::to_shape(shape), seed, low, high);
}

// Class numbers in [0, n).
template <std::size_t R>
shardwise::Tensor<std::int64_t, R> indices(const std::int64_t (&shape)[R], std::int64_t n, std::uint32_t seed) {
  shardwise::Tensor<std::int64_t, R> x(shardwise::detail::to_shape(shape));
  std::uint32_t state = seed;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    x.data()[i] = static_cast<std::int64_t>(state >> 8) % n;
  }
  return x;
}

inline double inner_product(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Checks d<f(inputs...), g>/d input for every element of every input, for a fixed g. f is called with tensors of double.
template <class F, std::size_t... R>
void check_gradient(F f, const shardwise::Tensor<double, R>&... inputs) {
  std::tuple<shardwise::Tensor<double, R>...> leaves{clone(inputs)...};
  std::apply([](auto&... x) { (x.requires_grad(true), ...); }, leaves);
  const auto y = std::apply(f, leaves);
  REQUIRE(y.requires_grad());
  const auto g = values(y.shape(), 77);
  backward(y, g);

  const shardwise::NoGrad guard;
  constexpr double step = 1e-5;
  int number = 0;
  const auto check = [&](auto& x) {
    ++number;
    REQUIRE(x.has_grad());
    const auto dx = x.grad();
    REQUIRE(dx.shape() == x.shape());
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const double before = x.data()[i];
      x.data()[i] = before + step;
      const auto up = std::apply(f, leaves);
      const double above = inner_product(up.data(), g.data(), g.size());
      x.data()[i] = before - step;
      const auto down = std::apply(f, leaves);
      const double below = inner_product(down.data(), g.data(), g.size());
      x.data()[i] = before;
      const double expected = (above - below) / (2 * step);
      INFO("input ", number, ", element ", i, ": ", dx.data()[i], " instead of ", expected);
      CHECK(std::fabs(dx.data()[i] - expected) <= 1e-7 * (1 + std::fabs(expected)));
    }
  };
  std::apply([&](auto&... x) { (check(x), ...); }, leaves);
}

}  // namespace test
