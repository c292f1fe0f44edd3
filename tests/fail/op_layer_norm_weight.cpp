// A sharded weight of a norm.
// expect-error: shardwise::norm: \[O16\] weight and bias are replicated
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x, const DTensor<float, 1, Mesh, Shard<0>>& w) {
  return rms_norm(x, w);
}
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x, const DTensor<float, 1, Mesh, Replicate>& w) {
  return rms_norm(x, w);
}
#endif
