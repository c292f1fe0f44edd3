// cast: values, gradients in the element type of their value, and collectives in the element type that was chosen.
#include <complex>

#include <shardwise/ops/cast.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

namespace {

// x as elements of U and back; both directions of the gradient are exact for small integers.
template <class U, class T>
void there_and_back(T) {
  INFO(to_string(dtype_of<T>), " to ", to_string(dtype_of<U>));
  Tensor<T, 1> x({5});
  for (int i = 0; i < 5; ++i) x.data()[i] = static_cast<T>(static_cast<float>(i));
  const auto y = cast<U>(x);
  static_assert(std::is_same_v<decltype(y), const Tensor<U, 1>>);
  for (int i = 0; i < 5; ++i) CHECK(y.data()[i] == static_cast<U>(static_cast<float>(i)));
  CHECK(equal(cast<T>(y), x));
}

}  // namespace

TEST_CASE("cast between all element types that hold real numbers") {
  const auto from = [](auto t) {
    there_and_back<float>(t);
    there_and_back<double>(t);
    there_and_back<bfloat16>(t);
    there_and_back<half>(t);
    there_and_back<std::int32_t>(t);
    there_and_back<std::int64_t>(t);
    there_and_back<std::uint8_t>(t);
  };
  from(float());
  from(double());
  from(bfloat16());
  from(half());
  from(std::int32_t());
  from(std::int64_t());
  from(std::uint8_t());
}

TEST_CASE("cast rounds to nearest, to integers towards zero, and keeps what float cannot hold") {
  Tensor<double, 1> x({4});
  x.data()[0] = 1.00390625;  // halfway between two bfloat16: to the even one
  x.data()[1] = 1.01171875;
  x.data()[2] = -2.75;
  x.data()[3] = 16777217;
  const auto narrow = cast<bfloat16>(x);
  CHECK(static_cast<float>(narrow.data()[0]) == 1.0f);
  CHECK(static_cast<float>(narrow.data()[1]) == 1.015625f);
  CHECK(cast<std::int64_t>(x).data()[2] == -2);
  CHECK(cast<std::int64_t>(x).data()[3] == 16777217);
  CHECK(cast<double>(cast<std::int64_t>(x)).data()[3] == 16777217);
  CHECK(cast<double>(x).data() == x.data());
}

TEST_CASE("cast of complex numbers, and from real to complex with the real part as gradient") {
  Tensor<std::complex<double>, 1> z({1});
  z.data()[0] = {1.5, -2.25};
  CHECK(cast<std::complex<float>>(z).data()[0] == std::complex<float>(1.5f, -2.25f));
  auto x = ones<float>({1});
  x.requires_grad(true);
  const auto y = cast<std::complex<double>>(x);
  CHECK(y.data()[0] == std::complex<double>(1, 0));
  backward(y, z);
  CHECK(x.grad().item() == 1.5f);
}

TEST_CASE("integers have no gradient: cast records nothing") {
  auto x = ones<float>({2});
  x.requires_grad(true);
  CHECK(!cast<std::int32_t>(x).requires_grad());
  CHECK(cast<double>(x).requires_grad());
  CHECK(!cast<double>(ones<std::int32_t>({2})).requires_grad());
}

// Forward type, backward type: PyTorch's redistribute takes both as arguments. Here a cast before it sets the type of the
// collective, forward and backward; one behind it leaves the collective in the type of the input.
SHARDWISE_TEST_RANKS(
    "RD-7 a replicated tensor in another element type: no communication, the gradient in the input's type", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto check = [&]<class T, class U>(T, U) {
    auto x = distribute_tensor<Replicate>(ones<T>({12, 3}), mesh, {.src_data_rank = no_source});
    x.requires_grad(true);
    CommDebugMode comm;
    const auto y = redistribute<Replicate>(cast<U>(x));
    static_assert(std::is_same_v<typename decltype(y.to_local())::value_type, U>);
    CHECK(equal(detach(y).to_local(), ones<U>({12, 3})));
    backward(y, gradient_of(y, ones<U>({12, 3})));
    const auto g = x.grad();
    static_assert(std::is_same_v<typename decltype(g.to_local())::value_type, T>);
    CHECK(equal(g.to_local(), ones<T>({12, 3})));
    CHECK(comm.total_count() == 0);
  };
  check(float(), bfloat16());
  check(bfloat16(), float());
  check(float(), float());
  check(bfloat16(), bfloat16());
}

SHARDWISE_TEST_RANKS(
    "RD-8 a shard gathered in another element type: one all_gather of its bytes, the gradient by a slice", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto check = [&]<class T, class U>(T, U, const auto& shape) {
    const auto whole = values<T>(shape, 1);
    const auto of = [&]<class S>(S) {
      auto x = distribute_tensor<S>(whole, mesh, {.src_data_rank = no_source});
      x.requires_grad(true);
      CommDebugMode comm;
      const auto y = redistribute<Replicate>(cast<U>(x));
      CHECK(comm.total_count() == 1);
      CHECK(comm.bytes(Collective::all_gather) ==
            static_cast<std::int64_t>(sizeof(U)) * (whole.size() - x.to_local().size()));
      CHECK(equal(detach(y).to_local(), cast<U>(whole)));
      backward(y, gradient_of(y, ones<U>(shape)));
      CHECK(comm.total_count() == 1);
      CHECK(equal(x.grad().to_local(), ones<T>(x.local_shape())));
    };
    of(Shard<0>());
    of(Shard<1>());
  };
  for (const std::int64_t n : {12, 13, 14}) {
    check(float(), bfloat16(), Shape<2>{n, 3});
    check(bfloat16(), float(), Shape<2>{3, n});
    check(double(), float(), Shape<2>{n, 3});
  }
}

SHARDWISE_TEST_RANKS("RD-57 gathered in bfloat16: a pending gradient is scattered in bfloat16 and arrives in float",
                     4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Shard<0>>(ones<float>({12, 3}), mesh, {.src_data_rank = no_source});
  x.requires_grad(true);
  {
    CommDebugMode comm;
    const auto y = to_local<Partial<>>(redistribute<Replicate>(cast<bfloat16>(x)));
    CHECK(comm.bytes(Collective::all_gather) == 2 * 27);
    backward(y, ones<bfloat16>({12, 3}));
    CHECK(comm.bytes(Collective::reduce_scatter) == 2 * 27);
    CHECK(comm.total_count() == 2);
    CHECK(equal(x.grad().to_local(), full<float>({3, 3}, 4)));
  }
  zero_grad({{"x", DType::float32, x.impl()}});
  {  // the other order: the reduction in float
    CommDebugMode comm;
    const auto y = to_local<Partial<>>(cast<bfloat16>(redistribute<Replicate>(x)));
    backward(y, ones<bfloat16>({12, 3}));
    CHECK(comm.bytes(Collective::all_gather) == 4 * 27);
    CHECK(comm.bytes(Collective::reduce_scatter) == 4 * 27);
    CHECK(equal(x.grad().to_local(), full<float>({3, 3}, 4)));
  }
}

SHARDWISE_TEST_RANKS("cast leaves every placement as it is, pending sums and maxima too", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  using Mesh = std::remove_const_t<decltype(mesh)>;
  const auto terms = from_local<Partial<>>(full<float>({2}, 1.5), mesh);
  static_assert(std::is_same_v<decltype(cast<double>(terms)), DTensor<double, 1, Mesh, Partial<>>>);
  CHECK(equal(cast<double>(terms).full_tensor(), full<double>({2}, 6)));
  const auto highest = from_local<Partial<Max>>(full<float>({2}, static_cast<float>(world.rank())), mesh);
  CHECK(equal(cast<std::int64_t>(redistribute<Replicate>(highest)).to_local(), full<std::int64_t>({2}, 3)));
  CHECK(equal(cast<bfloat16>(highest).full_tensor(), full<bfloat16>({2}, 3)));
}
