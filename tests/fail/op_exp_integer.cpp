// exp of integers.
// expect-error: shardwise::exp: \[O21\] exp is defined for real floating point
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<std::int32_t, 2>& x) { return exp(x); }
#else
auto f(const Tensor<half, 2>& x) { return exp(x); }
#endif
