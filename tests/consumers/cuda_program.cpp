// A user of the component cuda: no nvcc is in reach here. Without a device the program is built and linked, which it says.
#include <shardwise/core.hpp>
#include <shardwise/cuda/device.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/device/tensor.hpp>

#include <cstdio>

using namespace shardwise;

int main() {
  if (!cuda::is_available()) {
    std::puts("skipped: no CUDA device: the program is built and linked; it needs one to add numbers up");
    return 0;
  }
  auto x = to_device(ones<float>({1000}));
  const float seven = 7;
  detail::device::fill(DType::float32, x.device_data(), &seven, 1000, cuda::current_stream());
  const auto back = to_host(x);
  bool good = true;
  for (int i = 0; i < 1000; ++i) good = good && back.data()[i] == seven;
  std::puts(good ? "cuda program: good" : "cuda program: bad");
  return good ? 0 : 1;
}
