// The mean over a batch of which no rank knows all targets.
// expect-error: shardwise::cross_entropy: \[O14\] .*the mean over a sharded batch needs replicated targets
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x, const DTensor<std::int64_t, 1, Mesh, Shard<0>>& t) {
  return cross_entropy(x, t);
}
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x, const DTensor<std::int64_t, 1, Mesh, Replicate>& t) {
  return cross_entropy(x, t);
}
#endif
