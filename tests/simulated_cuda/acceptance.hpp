// What the build puts before the programs of tests/acceptance, and other tests, which are compiled as they are: their ranks have a GPU
// each, over NCCL.
// What they make stays on the host until it is distributed, given to a sharded module or made a part; what comes back lies on
// devices, where they read it by data(), as users of GPUs must not: here that is a copy on the host.
#pragma once

#define SHARDWISE_TEST_DEVICES

#include <cstddef>
#include <cstdint>
#include <map>
#include <type_traits>
#include <vector>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/device/redistribute.hpp>
#include <shardwise/shardwise.hpp>
#include <shardwise/testing/doctest.hpp>

static_assert(std::is_same_v<shardwise::testing::World, shardwise::NcclCommunicator>);

namespace test {

// The elements of x as they are now, at an address that is its own for as long as the calling thread lives. Copied on a stream of
// its own, which waits for what works on x.
template <class T, std::size_t R>
T* copied_to_host(const shardwise::Tensor<T, R, shardwise::Cuda>& x) {
  struct Copy {
    shardwise::detail::Ref<shardwise::detail::TensorImpl> of;  // whose address is taken
    std::vector<T> elements;
  };
  thread_local std::map<const void*, Copy> copies;
  thread_local const shardwise::cuda::Stream reading;
  reading.wait(shardwise::cuda::current_stream());
  const auto here = [&] {
    const shardwise::cuda::StreamScope scope(reading);
    return to_host(x);
  }();
  Copy& copy = copies.try_emplace(x.impl().get(), Copy{x.impl(), {}}).first->second;
  copy.elements.assign(here.data(), here.data() + here.size());
  return copy.elements.data();
}

using Axis = shardwise::DeviceMesh<shardwise::NcclCommunicator, "tp">;

}  // namespace test

namespace shardwise {

template <>
inline float* Tensor<float, 0, Cuda>::data() {
  return test::copied_to_host(*this);
}
template <>
inline float* Tensor<float, 1, Cuda>::data() {
  return test::copied_to_host(*this);
}
template <>
inline float* Tensor<float, 2, Cuda>::data() {
  return test::copied_to_host(*this);
}
template <>
inline float* Tensor<float, 3, Cuda>::data() {
  return test::copied_to_host(*this);
}
template <>
inline double* Tensor<double, 2, Cuda>::data() {
  return test::copied_to_host(*this);
}
// Of a distributed tensor they ask only whether its memory is the same as before.
template <>
inline float* DTensor<float, 2, test::Axis, Shard<1>>::data() {
  return device_data();
}

}  // namespace shardwise
