// A plain operand beside a distributed one.
// expect-error: shardwise::arithmetic: \[O1\] one operand is plain or lies on another mesh; bring it there with distribute_tensor
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/local.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Replicate>& x, const Tensor<float, 2>& y) { return x + y; }
#else
auto f(const DTensor<float, 2, Mesh, Replicate>& x, const Tensor<float, 2>& y) {
  return x + from_local<Replicate>(y, x.mesh());
}
#endif
