// Operands of two types.
// expect-error: shardwise::concat: \[O24\] all operands have one type
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Tensor<double, 2>& y) { return concat<0>(x, y); }
#else
auto f(const Tensor<float, 2>& x, const Tensor<float, 2>& y) { return concat<0>(x, y); }
#endif
