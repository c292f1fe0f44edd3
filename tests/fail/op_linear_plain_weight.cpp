// A distributed input for a plain weight.
// expect-error: shardwise::linear: \[O1\] one operand is plain or lies on another mesh
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Replicate>& x, const Tensor<float, 2>& w) { return linear(x, w); }
#else
auto f(const Tensor<float, 2>& x, const Tensor<float, 2>& w) { return linear(x, w); }
#endif
