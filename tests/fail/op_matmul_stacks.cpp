// MM-4: a stack sharded along its leading dimension does not meet one that is whole there.
// expect-error: shardwise::matmul: \[O6\] the placements do not fit: .* or both along a leading one; redistribute one of them
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 3, Mesh, Shard<0>>& a, const DTensor<float, 3, Mesh, Replicate>& b) { return matmul(a, b); }
#else
auto f(const DTensor<float, 3, Mesh, Shard<0>>& a, const DTensor<float, 3, Mesh, Shard<0>>& b) { return matmul(a, b); }
#endif
