// PW-2: a scalar would join a pending sum once a rank.
// expect-error: shardwise::arithmetic: \[O3\] a scalar added to a pending reduction would count once a rank
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<>>& x) { return 1.0f + x; }
#else
auto f(const DTensor<float, 2, Mesh, Partial<>>& x) { return 2.0f * x; }
#endif
