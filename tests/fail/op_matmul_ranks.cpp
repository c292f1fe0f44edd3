// A product with a vector on the left.
// expect-error: shardwise::matmul: \[O19\] the left operand has 2 or more dimensions and the right one 2
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 1>& a, const Tensor<float, 2>& b) { return matmul(a, b); }
#else
auto f(const Tensor<float, 3>& a, const Tensor<float, 2>& b) { return matmul(a, b); }
#endif
