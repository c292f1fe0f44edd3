// Integers do not divide.
// expect-error: shardwise::arithmetic: \[O22\] integers do not divide; use a floating point element type
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<std::int64_t, 1>& x, const Tensor<std::int64_t, 1>& y) { return x / y; }
#else
auto f(const Tensor<std::int64_t, 1>& x, const Tensor<std::int64_t, 1>& y) { return x * y - 2 * x; }
#endif
