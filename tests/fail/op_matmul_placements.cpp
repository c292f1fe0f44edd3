// MM-1: sharded rows on the right do not meet a replicated left operand.
// expect-error: shardwise::matmul: \[O6\] the placements do not fit: shard rows of the left
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Replicate>& a, const DTensor<float, 2, Mesh, Shard<0>>& b) { return matmul(a, b); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<1>>& a, const DTensor<float, 2, Mesh, Shard<0>>& b) { return matmul(a, b); }
#endif
