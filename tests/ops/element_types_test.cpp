// Operators by element type: integers, 16-bit floating point, complex numbers; what has no meaning is in tests/fail/.
#include <complex>

#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/ops/softmax.hpp>

#include <doctest/doctest.h>

using namespace shardwise;

namespace {

template <class T, std::size_t N>
Tensor<T, 1> row(const T (&list)[N]) {
  Tensor<T, 1> x(Shape<1>{static_cast<std::int64_t>(N)});
  for (std::size_t i = 0; i < N; ++i) x.data()[i] = list[i];
  return x;
}

template <class T>
void check_integers() {
  const auto a = row<T>({1, 2, 3, 4}), b = row<T>({5, 1, 2, 0});
  CHECK(equal(a + b, row<T>({6, 3, 5, 4})));
  CHECK(equal(a * b, row<T>({5, 2, 6, 0})));
  CHECK(equal(a * 2 + 1, row<T>({3, 5, 7, 9})));
  CHECK(equal(10 - a, row<T>({9, 8, 7, 6})));
  CHECK(equal((a - b) + b, a));
  CHECK(equal(-(-a), a));
  CHECK(sum(a).item() == 10);
  CHECK(equal(sum<0>(reshape(a, {2, 2})), row<T>({4, 6})));
  CHECK(equal(matmul(reshape(a, {2, 2}), reshape(b, {2, 2})), reshape(row<T>({9, 1, 23, 3}), {2, 2})));
  CHECK(equal(transpose<0, 1>(reshape(a, {2, 2})), reshape(row<T>({1, 3, 2, 4}), {2, 2})));
  CHECK(equal(concat<0>(a, a), row<T>({1, 2, 3, 4, 1, 2, 3, 4})));
}

// Every operator runs, with its gradient, and is close to what it is in double.
template <class T>
void check_real(double tolerance) {
  const auto close = [&](const auto& x, const auto& y) {
    REQUIRE(x.shape() == y.shape());
    for (std::int64_t i = 0; i < x.size(); ++i) {
      INFO("element ", i, ": ", static_cast<double>(x.data()[i]), " instead of ", y.data()[i]);
      CHECK(std::fabs(static_cast<double>(x.data()[i]) - y.data()[i]) <= tolerance * (1 + std::fabs(y.data()[i])));
    }
  };
  const auto run = [&]<class U>(U, auto f) {
    Tensor<U, 2> x(Shape<2>{2, 3});
    for (std::int64_t i = 0; i < 6; ++i) x.data()[i] = static_cast<U>(0.25f * static_cast<float>(i + 1));
    x.requires_grad(true);
    const auto y = f(x);
    backward(y, ones<U>(y.shape()));
    return std::pair{detach(y), x.grad()};
  };
  const auto check = [&](auto f) {
    const auto mine = run(T{}, f);
    const auto reference = run(double{}, f);
    close(mine.first, reference.first);
    close(mine.second, reference.second);
  };
  check([](const auto& x) { return x * x + x / (x + 1) - 0.5 * x; });
  check([](const auto& x) { return relu(gelu(x)) + silu(x) * sigmoid(x); });
  check([](const auto& x) { return tanh(x) + exp(log(sqrt(x))); });
  check([](const auto& x) {
    return linear(x, ones<typename std::remove_cvref_t<decltype(x)>::value_type>({4, 3}),
                  ones<typename std::remove_cvref_t<decltype(x)>::value_type>({4}));
  });
  check([](const auto& x) { return matmul(x, transpose<0, 1>(x)); });
  check([](const auto& x) { return softmax(x) + log_softmax<0>(x); });
  check([](const auto& x) { return layer_norm(x, {.eps = 0.1}) + rms_norm(x, {.eps = 0.1}); });
  check([](const auto& x) { return mean(x) * sum<0>(x); });
  check([](const auto& x) { return cross_entropy(x, row<std::int64_t>({0, 2})); });
  check([](const auto& x) { return embedding(x, row<std::int64_t>({1, 1, 0})); });
}

template <class T>
void check_complex() {
  using C = std::complex<T>;
  const auto near = [](const auto& x, const auto& y) { return allclose(x, y, {.rtol = 1e-5, .atol = 1e-6}); };
  const auto a = row<C>({C(1, 2), C(0, -1)}), b = row<C>({C(3, -1), C(2, 2)});
  CHECK(near(a * b, row<C>({C(5, 5), C(2, -2)})));
  CHECK(near(a / b * b, a));
  CHECK(near(a + 1.0 - a, row<C>({C(1, 0), C(1, 0)})));
  CHECK(near(a * C(0, 1), row<C>({C(-2, 1), C(1, 0)})));
  CHECK(near(-a, row<C>({C(-1, -2), C(0, 1)})));
  CHECK(std::abs(sum(a).item() - C(1, 1)) < 1e-6);
  CHECK(std::abs(mean(a).item() - C(T(0.5), T(0.5))) < 1e-6);
  // The gradient of a product is the conjugate of the other factor, as in PyTorch.
  auto x = clone(a), y = clone(b);
  x.requires_grad(true);
  y.requires_grad(true);
  backward(x * y, ones<C>({2}));
  CHECK(near(x.grad(), row<C>({C(3, 1), C(2, -2)})));
  CHECK(near(y.grad(), row<C>({C(1, -2), C(0, 1)})));
  auto scaled = clone(a);
  scaled.requires_grad(true);
  backward(scaled * C(0, 1), ones<C>({2}));
  CHECK(near(scaled.grad(), row<C>({C(0, -1), C(0, -1)})));
  // And so it is for matrices: dA = G B^H, dB = A^H G.
  auto m = clone(reshape(a, {1, 2})), n = clone(reshape(b, {2, 1}));
  m.requires_grad(true);
  n.requires_grad(true);
  const auto product = matmul(m, n);
  CHECK(std::abs(detach(product).data()[0] - C(7, 3)) < 1e-5);
  backward(product);
  CHECK(near(reshape(m.grad(), {2}), row<C>({C(3, 1), C(2, -2)})));
  CHECK(near(reshape(n.grad(), {2}), row<C>({C(1, -2), C(0, 1)})));
}

}  // namespace

TEST_CASE("integers add, subtract, multiply, sum, and are moved") {
  check_integers<std::int32_t>();
  check_integers<std::int64_t>();
  check_integers<std::uint8_t>();
}

TEST_CASE("float, bfloat16 and half run every operator close to double") {
  check_real<float>(1e-5);
  check_real<bfloat16>(0.03);
  check_real<half>(0.005);
}

TEST_CASE("complex numbers multiply, divide, sum, and have conjugate gradients") {
  check_complex<float>();
  check_complex<double>();
}
