// AP-5 [P1]: one placement for a mesh of two axes.
// expect-error: shardwise::distribute_tensor: \[P1\] one placement per mesh axis
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Mesh& mesh) { return distribute_tensor<Shard<0>>(x, mesh); }
#else
auto f(const Tensor<float, 2>& x, const Mesh& mesh) { return distribute_tensor<Shard<0>, Replicate>(x, mesh); }
#endif
