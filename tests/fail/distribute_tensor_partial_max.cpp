// [P3]: a value is no pending maximum.
// expect-error: shardwise::distribute_tensor: \[P3\] only a pending sum can be made of a value; use Replicate or Shard
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Line& mesh) { return distribute_tensor<Partial<Max>>(x, mesh); }
#else
auto f(const Tensor<float, 2>& x, const Line& mesh) { return distribute_tensor<Partial<>>(x, mesh); }
#endif
