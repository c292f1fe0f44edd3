// A fraction times integers.
// expect-error: shardwise::arithmetic: \[O23\] a fraction has no meaning for integer elements
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<std::int64_t, 1>& x) { return x * 0.5; }
#else
auto f(const Tensor<std::int64_t, 1>& x) { return x * 2; }
#endif
