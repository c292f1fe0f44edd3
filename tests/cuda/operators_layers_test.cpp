// Products, rows, losses, tables and dropout of tensors on a device, against the host's: values and gradients.
#include <cstdint>

#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/ops/softmax.hpp>

#include "cuda/operators.hpp"

namespace {

using namespace test;
using shardwise::Reduction;

template <class T>
void products() {
  const Tensor<T, 3> x = random_tensor<T>(1, {2, 3, 6}), s = random_tensor<T>(5, {2, 6, 4});
  const Tensor<T, 2> w = random_tensor<T>(2, {5, 6}), m = random_tensor<T>(4, {6, 4});
  const Tensor<T, 1> b = random_tensor<T>(3, {5});
  check_on_device("matmul", 64, [](const auto& p, const auto& q) { return matmul(p, q); }, x, m);
  check_on_device("matmul of stacks", 64, [](const auto& p, const auto& q) { return matmul(p, q); }, x, s);
  check_on_device("linear", 64, [](const auto& p, const auto& q) { return linear(p, q); }, x, w);
  check_on_device(
      "linear with a bias", 64, [](const auto& p, const auto& q, const auto& r) { return linear(p, q, r); }, x, w, b);
  check_on_device(
      "no inner dimension", 0, [](const auto& p, const auto& q) { return matmul(p, q); }, random_tensor<T>(1, {3, 0}),
      random_tensor<T>(1, {0, 2}));
  check_on_device(
      "no rows", 0, [](const auto& p, const auto& q, const auto& r) { return linear(p, q, r); },
      random_tensor<T>(1, {0, 6}), w, b);
}

SHARDWISE_DEVICE_TEST("products of tensors on a device are the host's") {
  products<float>();
  products<shardwise::bfloat16>();
  products<std::complex<double>>();
  products<std::int64_t>();
}

template <class T>
void rows() {
  const Tensor<T, 3> x = random_tensor<T>(1, {4, 6, 33});
  const Tensor<T, 1> w = random_tensor<T>(2, {33}), b = random_tensor<T>(3, {33});
  check_on_device("softmax", 16, [](const auto& v) { return softmax(v); }, x);
  check_on_device("softmax of the middle", 16, [](const auto& v) { return shardwise::softmax<1>(v); }, x);
  check_on_device("log_softmax", 32, [](const auto& v) { return log_softmax(v); }, x);
  check_on_device("layer_norm", 64, [](const auto& v) { return layer_norm(v); }, x);
  check_on_device(
      "layer_norm with a weight", 128, [](const auto& v, const auto& p, const auto& q) { return layer_norm(v, p, q); },
      x, w, b);
  check_on_device("rms_norm", 64, [](const auto& v) { return rms_norm(v); }, x);
  check_on_device("rms_norm with a weight", 128, [](const auto& v, const auto& p) { return rms_norm(v, p); }, x, w);
}

SHARDWISE_DEVICE_TEST("softmax and norms of tensors on a device are the host's") {
  rows<float>();
  rows<shardwise::bfloat16>();
}

Tensor<std::int64_t, 1> targets(std::int64_t n, std::int64_t classes, std::int64_t ignored) {
  Tensor<std::int64_t, 1> t({n});
  Random random(5);
  for (std::int64_t i = 0; i < n; ++i) t.data()[i] = i % 4 == 3 ? ignored : random.below(classes);
  return t;
}

template <class T>
void losses() {
  const auto x = random_tensor<T>(1, {12, 10});
  const auto t = targets(12, 10, -100);
  check_on_device("mean", 16, [](const auto& v, const auto& y) { return cross_entropy(v, y); }, x, t);
  check_on_device(
      "sum", 64, [](const auto& v, const auto& y) { return shardwise::cross_entropy<Reduction::sum>(v, y); }, x, t);
  check_on_device(
      "none", 16, [](const auto& v, const auto& y) { return shardwise::cross_entropy<Reduction::none>(v, y); }, x, t);
  check_on_device(
      "smoothed", 32, [](const auto& v, const auto& y) { return cross_entropy(v, y, {.label_smoothing = 0.1}); }, x, t);
  const auto weighted = [&]<class X>(const X& v, const auto& y) {
    using Space = shardwise::detail::space_of<typename X::layout_type>;
    return cross_entropy(
        v, y, {.weight = brought<Space>(random_tensor<T>(9, {10}, 0.5, 2)), .ignore_index = 3, .label_smoothing = 0.2});
  };
  check_on_device("weighted", 64, weighted, x, targets(12, 10, 3));
  check_on_device(
      "every row ignored", 0, [](const auto& v, const auto& y) { return cross_entropy(v, y, {.ignore_index = 0}); },
      random_tensor<T>(1, {2, 3}), Tensor<std::int64_t, 1>({2}));
}

SHARDWISE_DEVICE_TEST("cross entropy of tensors on a device is the host's") {
  losses<float>();
  losses<shardwise::bfloat16>();
}

SHARDWISE_DEVICE_TEST("tables and dropout on a device are the host's") {
  Tensor<std::int64_t, 2> index({3, 4});
  for (std::int64_t i = 0; i < 12; ++i) index.data()[i] = (i * i) % 5;
  const auto lookup = [](const auto& table, const auto& i) { return embedding(table, i); };
  check_on_device("embedding", 4, lookup, random_tensor<float>(1, {5, 7}), index);
  check_on_device("embedding of 16 bits", 4, lookup, random_tensor<shardwise::bfloat16>(1, {5, 7}), index);
  const auto drop = [](const auto& x) { return dropout(x, 0.3); };
  check_on_device("dropout", 1, drop, random_tensor<float>(1, {13, 11}));
  check_on_device("dropout of half", 1, drop, random_tensor<shardwise::half>(1, {13, 11}));
}

SHARDWISE_DEVICE_TEST("a loss comes home when it is asked for, and its gradients add up") {
  auto x = to_device(random_tensor<float>(1, {4, 3}));
  x.requires_grad(true);
  const auto t = to_device(targets(4, 3, 0));
  const auto loss = cross_entropy(x, t);
  CHECK(to_host(loss).item() > 0);
  backward(loss);
  const auto once = values(to_host(x.grad()));
  backward(cross_entropy(x, t));
  const auto twice = values(to_host(x.grad()));
  for (std::size_t i = 0; i < once.size(); ++i) CHECK(twice[i] == doctest::Approx(2 * once[i]));
}

SHARDWISE_DEVICE_TEST("an index of no row and a target of no class are errors when the host waits for the result") {
  auto index = targets(8, 4, 2);
  index.data()[5] = 4;
  const auto there = to_device(index);
  const auto rows = embedding(to_device(random_tensor<float>(1, {4, 3})), there);
  CHECK_THROWS_WITH_AS(
      to_host(rows),
      "shardwise::embedding: the index at position 5 of a tensor on the device is outside the table; its row is zero",
      shardwise::Error);
  CHECK(to_host(rows).data()[15] == 0);
  const auto loss = cross_entropy(to_device(random_tensor<float>(1, {8, 4})), there);
  CHECK_THROWS_WITH_AS(
      to_host(loss),
      "shardwise::cross_entropy: the target in row 5 of a tensor on the device is not one of the classes, nor "
      "ignore_index; the loss is NaN",
      shardwise::Error);
  CHECK(std::isnan(to_host(loss).item()));
}

SHARDWISE_DEVICE_TEST("operands on different devices are refused, naming both") {
  if (shardwise::cuda::device_count() < 2) {
    std::printf("SKIPPED: one CUDA device: operands on different devices\n");
    return;
  }
  const auto x = to_device(random_tensor<float>(1, {3}));
  const shardwise::cuda::DeviceScope other(1);
  const auto y = to_device(random_tensor<float>(1, {3}));
  CHECK_THROWS_WITH_AS(
      x + y,
      "shardwise: an operand lies on device 0 and the calling thread works on device 1; call cuda::set_device(0) before it",
      shardwise::Error);
  CHECK(values(to_host(y + y))[0] == doctest::Approx(2 * values(random_tensor<float>(1, {3}))[0]));
}

SHARDWISE_DEVICE_TEST("an operator on another stream that waits reads what is there, and its operand may go") {
  const shardwise::cuda::Stream other;
  const auto mine = stream();
  for (int round = 0; round < 20; ++round) {
    auto x = to_device(random_tensor<float>(static_cast<std::uint64_t>(round + 1), {400}));
    const auto want = values(home(to_host(x)));
    Tensor<float, 1, Cuda> y;
    x = x * 2.0f;
    {
      const shardwise::cuda::StreamScope scope(other);
      other.wait(mine);
      y = x + 1.0f;
    }
    x = Tensor<float, 1, Cuda>();
    const auto next = Tensor<float, 1, Cuda>({400}) - 5.0f;  // may lie where x did
    mine.wait(other);
    const auto got = values(to_host(y));
    bool right = true;
    for (std::size_t i = 0; i < got.size(); ++i) right = right && got[i] == 2.0f * want[i] + 1.0f;
    CHECK(right);
  }
}

}  // namespace
