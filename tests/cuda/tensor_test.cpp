// Tensors on a device: made, viewed, copied there and back.
#include <cstdint>

#include <shardwise/device/tensor.hpp>
#include <shardwise/tensor/factories.hpp>

#include "cuda/device.hpp"

namespace {

using namespace shardwise;

SHARDWISE_DEVICE_TEST("a new tensor on a device is zero, whatever its sizes") {
  const Tensor<float, 2, Cuda> x({3, 5});
  CHECK(x.shape() == Shape<2>{3, 5});
  const Tensor<float, 2> home = to_host(x);
  REQUIRE(home.shape() == Shape<2>{3, 5});
  for (std::int64_t i = 0; i < 15; ++i) CHECK(home.data()[i] == 0);
  const Tensor<double, 3, Cuda> empty({2, 0, 4});
  CHECK(empty.device_data() != nullptr);
  CHECK(to_host(empty).size() == 0);
  CHECK(to_host(Tensor<half, 0, Cuda>(Shape<0>{})).size() == 1);
  CHECK_THROWS_AS((Tensor<float, 1, Cuda>(Shape<1>{-1})), ShapeError);
}

template <class T>
void there_and_back(const Tensor<T, 1>& x) {
  const auto there = to_device(x);
  const auto copy = clone(there);
  const auto home = to_host(copy);
  REQUIRE(home.shape() == x.shape());
  CHECK(std::memcmp(home.data(), x.data(), x.bytes()) == 0);
  CHECK(copy.device_data() != there.device_data());
}

SHARDWISE_DEVICE_TEST("there and back is the same, from pageable and from pinned memory") {
  const auto x = arange<std::int64_t>(1000);
  there_and_back(x);
  there_and_back(pin_memory(x));
  there_and_back(arange<float>(0));
}

SHARDWISE_DEVICE_TEST("a pinned tensor may go while it is on its way") {
  for (int round = 0; round < 30; ++round) {
    Tensor<std::int64_t, 1, Cuda> there;
    {
      auto x = pin_memory(arange<std::int64_t>(500));
      x.data()[0] = round;
      there = to_device(x);
    }
    auto other = pin_memory(zeros<std::int64_t>({500}));
    const auto home = to_host(there);
    CHECK(home.data()[0] == round);
    CHECK(home.data()[499] == 499);
  }
}

SHARDWISE_DEVICE_TEST("a view shows the caller's device memory") {
  const auto x = to_device(arange<float>(12));
  auto part = Tensor<float, 2, Cuda>::view(const_cast<float*>(x.device_data()) + 4, {2, 3});
  const auto home = to_host(part);
  for (int i = 0; i < 6; ++i) CHECK(home.data()[i] == static_cast<float>(4 + i));
}

SHARDWISE_DEVICE_TEST("a tensor that another stream reads stays until that one is done") {
  const cuda::Stream other;
  const cuda::StreamView mine = cuda::current_stream();
  for (int round = 0; round < 30; ++round) {
    Tensor<std::int64_t, 1> home = pin_memory(zeros<std::int64_t>({2000}));
    {
      auto x = arange<std::int64_t>(2000);
      x.data()[7] = round;
      const auto there = to_device(x);
      other.wait(mine);
      record_stream(there, other);
      detail::copy_to_host(home.impl()->buffer, there.impl()->buffer, home.bytes(), other);
    }
    const Tensor<std::int64_t, 1, Cuda> next({2000});
    other.synchronize();
    CHECK(home.data()[7] == round);
    CHECK(home.data()[1999] == 1999);
  }
}

}  // namespace
