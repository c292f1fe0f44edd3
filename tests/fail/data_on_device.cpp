// The elements of a tensor on a device are not read on the host, by an operator either.
// expect-error: shardwise::data: \[S3\] these elements lie on a device, where the host reads and writes nothing; to_host\(x\)
#include <shardwise/tensor/tensor.hpp>

using namespace shardwise;
struct Elsewhere {
  static constexpr MemorySpace value = MemorySpace::cuda;
  static detail::Buffer zeroed(std::size_t bytes) { return detail::Buffer(bytes); }
};

#if SHARDWISE_EXPECT_FAIL
float f(const Tensor<float, 1, Elsewhere>& x) { return x.data()[0]; }
#else
float f(const Tensor<float, 1>& x) { return x.data()[0]; }
const float* g(const Tensor<float, 1, Elsewhere>& x) { return x.device_data(); }
#endif
