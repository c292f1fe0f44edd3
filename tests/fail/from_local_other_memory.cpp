// [X2]: a part on a device, of a tensor whose parts lie on the host.
// expect-error: shardwise::from_local: \[X2\] the part lies on a device, the tensors of the mesh on the host; bring it there with to_host\(x\)
#include <shardwise/core.hpp>

using namespace shardwise;
struct Device {
  static constexpr MemorySpace value = MemorySpace::cuda;
};
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2, Device>& x, const Mesh& mesh) { return from_local<Shard<0>>(x, mesh); }
#else
auto f(const Tensor<float, 2>& x, const Mesh& mesh) { return from_local<Shard<0>>(x, mesh); }
#endif
