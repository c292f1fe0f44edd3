// [P2]: a vector has no dimension 1.
// expect-error: shardwise::distribute_tensor: \[P2\] the shard dimension exists in the tensor; choose one from -rank to rank - 1
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 1>& x, const Line& mesh) { return distribute_tensor<Shard<1>>(x, mesh); }
#else
auto f(const Tensor<float, 1>& x, const Line& mesh) { return distribute_tensor<Shard<-1>>(x, mesh); }
#endif
