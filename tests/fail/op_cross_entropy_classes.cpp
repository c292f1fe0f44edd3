// Classes that no rank has all of.
// expect-error: shardwise::cross_entropy: \[O14\] classes are whole on every rank
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x, const DTensor<std::int64_t, 1, Mesh, Replicate>& t) {
  return cross_entropy(x, t);
}
#else
auto f(const DTensor<float, 2, Mesh, Replicate>& x, const DTensor<std::int64_t, 1, Mesh, Replicate>& t) {
  return cross_entropy(x, t);
}
#endif
