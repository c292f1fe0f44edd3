// [X2]: a part on the host, of a tensor whose parts lie on devices.
// expect-error: shardwise::from_local: \[X2\] a part lies where the ranks of the mesh have their tensors; bring it there with to_device\(x\)
#include <shardwise/core.hpp>

using namespace shardwise;
struct OnDevices : ThreadCommunicator {
  static constexpr MemorySpace memory_space = MemorySpace::cuda;
};

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const DeviceMesh<OnDevices, "tp">& mesh) { return from_local<Shard<0>>(x, mesh); }
#else
auto f(const Tensor<float, 2>& x, const DeviceMesh<ThreadCommunicator, "tp">& mesh) {
  return from_local<Shard<0>>(x, mesh);
}
#endif
