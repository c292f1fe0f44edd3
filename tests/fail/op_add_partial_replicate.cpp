// PW-1: what is replicated would join a pending sum once a rank.
// expect-error: shardwise::arithmetic: \[O2\] .*a replicated operand of a pending sum: redistribute<Partial<>>
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<>>& x, const DTensor<float, 2, Mesh, Replicate>& y) { return x + y; }
#else
auto f(const DTensor<float, 2, Mesh, Partial<>>& x, const DTensor<float, 2, Mesh, Replicate>& y) {
  return x + redistribute<Partial<>>(y);
}
#endif
