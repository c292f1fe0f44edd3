// Elementwise operators, sums and copies of tensors on a device, against the host's: values and gradients. A type of each kind: the
// kernels' own tests go through all of them.
#include <cstdint>

#include <shardwise/ops/cast.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/ops/shape.hpp>

#include "cuda/operators.hpp"

namespace {

using namespace test;
using shardwise::reshape;

template <class T>
void arithmetic() {
  const Tensor<T, 3> a = random_tensor<T>(1, {3, 1, 5}), c = random_tensor<T>(3, {3, 4, 1}, 1, 2);
  const Tensor<T, 2> b = random_tensor<T>(2, {4, 5}, 1, 2);
  check_on_device("a + b", 2, [](const auto& x, const auto& y) { return x + y; }, a, b);
  check_on_device("a - b", 8, [](const auto& x, const auto& y) { return x - y; }, a, c);
  check_on_device("a * b", 16, [](const auto& x, const auto& y) { return x * y; }, a, b);
  if constexpr (FieldElement<T>) {
    check_on_device("a / b", 32, [](const auto& x, const auto& y) { return x / y; }, a, b);
    check_on_device("x / 3", 4, [](const auto& x) { return x / 3; }, a);
    check_on_device("3 / x", 16, [](const auto& x) { return 3 / x; }, b);
  }
  check_on_device("3 - 2 x + 1", 4, [](const auto& x) { return 3 - (x * 2 + 1); }, a);
  check_on_device("one operand twice", 8, [](const auto& x) { return x * x + x; }, c);
  check_on_device(
      "nothing", 0, [](const auto& x, const auto& y) { return x * y; }, random_tensor<T>(1, {2, 0}),
      random_tensor<T>(2, {1, 1}));
}

SHARDWISE_DEVICE_TEST("arithmetic on a device, with broadcasting and scalars, is the host's") {
  arithmetic<float>();
  arithmetic<std::complex<double>>();
  arithmetic<std::int64_t>();
}

template <class T>
void functions() {
  const Tensor<T, 2> x = random_tensor<T>(1, {7, 9});
  const Tensor<T, 1> positive = random_tensor<T>(2, {65}, 0.5, 2);
  check_on_device("relu", 1, [](const auto& v) { return relu(v); }, x);
  check_on_device("silu", 8, [](const auto& v) { return silu(v); }, x);
  check_on_device("sigmoid", 8, [](const auto& v) { return sigmoid(v); }, x);
  check_on_device("tanh", 8, [](const auto& v) { return tanh(v); }, x);
  check_on_device("exp", 8, [](const auto& v) { return exp(v); }, x);
  check_on_device("log", 8, [](const auto& v) { return log(v); }, positive);
  check_on_device("sqrt", 8, [](const auto& v) { return sqrt(v); }, positive);
  check_on_device("gelu", 8, [](const auto& v) { return gelu(v); }, x);
  check_on_device(
      "gelu by tanh", 8, [](const auto& v) { return gelu(v, {.approximate = shardwise::Approximate::tanh}); }, x);
  check_on_device("-x", 0, [](const auto& v) { return -v; }, x);
}

SHARDWISE_DEVICE_TEST("functions of one tensor on a device are the host's") {
  functions<float>();
  functions<shardwise::bfloat16>();
}

template <class T>
void sums() {
  const auto x = random_tensor<T>(1, {5, 6, 7});
  check_on_device("sum", 64, [](const auto& v) { return sum(v); }, x);
  check_on_device("mean", 8, [](const auto& v) { return mean(v); }, x);
  check_on_device("sum over the first", 16, [](const auto& v) { return shardwise::sum<0>(v); }, x);
  check_on_device("sum over the middle", 16, [](const auto& v) { return shardwise::sum<1>(v); }, x);
  check_on_device("mean over the last", 8, [](const auto& v) { return shardwise::mean<-1>(v); }, x);
  check_on_device(
      "a sum of nothing", 0, [](const auto& v) { return shardwise::sum<1>(v); }, random_tensor<T>(1, {3, 0, 2}));
  check_on_device("the sum of nothing", 0, [](const auto& v) { return sum(v); }, random_tensor<T>(1, {0}));
}

SHARDWISE_DEVICE_TEST("sums and means on a device are the host's") {
  sums<float>();
  sums<std::complex<double>>();
}

template <class T>
void copies() {
  const auto x = random_tensor<T>(1, {3, 40, 5}), y = random_tensor<T>(2, {3, 2, 5});
  check_on_device("transpose", 0, [](const auto& v) { return shardwise::transpose<0, 2>(v); }, x);
  check_on_device("transpose of the last two", 0, [](const auto& v) { return shardwise::transpose<1, 2>(v); }, x);
  check_on_device("reshape", 0, [](const auto& v) { return reshape(v, {40, -1}); }, x);
  check_on_device("concat", 0, [](const auto& v, const auto& w) { return shardwise::concat<1>(v, w, v); }, x, y);
  if constexpr (FieldElement<T>)
    check_on_device("concat, gradients summed", 2, [](const auto& v) { return shardwise::concat<0>(v, v); }, y);
}

SHARDWISE_DEVICE_TEST("transpose, reshape and concat on a device are the host's") {
  copies<float>();
  copies<std::uint8_t>();
}

SHARDWISE_DEVICE_TEST("casts on a device are the host's") {
  const auto x = random_tensor<float>(1, {3, 41}, -100, 100);
  check_on_device("to double", 0, [](const auto& v) { return shardwise::cast<double>(v); }, x);
  check_on_device("to bfloat16", 1, [](const auto& v) { return shardwise::cast<shardwise::bfloat16>(v); }, x);
  check_on_device(
      "to half and back", 0, [](const auto& v) { return shardwise::cast<float>(shardwise::cast<shardwise::half>(v)); },
      x);
  check_on_device("to integers", 0, [](const auto& v) { return shardwise::cast<std::int32_t>(v); }, x);
  check_on_device("to a complex number", 0, [](const auto& v) { return shardwise::cast<std::complex<double>>(v); }, x);
}

}  // namespace
