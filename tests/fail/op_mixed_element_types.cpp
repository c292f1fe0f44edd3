// Operands of two element types.
// expect-error: shardwise::arithmetic: \[O20\] both operands have one element type
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Tensor<double, 2>& y) { return x + y; }
#else
auto f(const Tensor<float, 2>& x, const Tensor<float, 2>& y) { return x + y; }
#endif
