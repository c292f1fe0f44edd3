// A replicated bias for sharded columns.
// expect-error: shardwise::linear: \[O9\] the bias lies as the output features do: Shard<0> where the weight is Shard<0>
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Replicate>& x, const DTensor<float, 2, Mesh, Shard<0>>& w,
       const DTensor<float, 1, Mesh, Replicate>& b) {
  return linear(x, w, b);
}
#else
auto f(const DTensor<float, 2, Mesh, Replicate>& x, const DTensor<float, 2, Mesh, Shard<0>>& w,
       const DTensor<float, 1, Mesh, Shard<0>>& b) {
  return linear(x, w, b);
}
#endif
