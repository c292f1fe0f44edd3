// A plain bias beside an input and a weight on a mesh.
// expect-error: shardwise::linear: \[O1\] one operand is plain or lies on another mesh
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;
using Matrix = DTensor<float, 2, Mesh, Replicate>;

#if SHARDWISE_EXPECT_FAIL
auto f(const Matrix& x, const Matrix& w, const Tensor<float, 1>& b) { return linear(x, w, b); }
#else
auto f(const Matrix& x, const Matrix& w, const DTensor<float, 1, Mesh, Replicate>& b) { return linear(x, w, b); }
#endif
