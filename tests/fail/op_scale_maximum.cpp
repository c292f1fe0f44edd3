// A maximum scaled by a negative number would be a minimum.
// expect-error: shardwise::arithmetic: \[O4\] only a pending sum or average can be scaled
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<Max>>& x) { return 2.0f * x; }
#else
auto f(const DTensor<float, 2, Mesh, Partial<Max>>& x) { return -x; }
#endif
