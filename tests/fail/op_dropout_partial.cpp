// dropout of a pending sum.
// expect-error: shardwise::dropout: \[O5\] dropout of a pending reduction is not the reduction of dropout
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<>>& x) { return dropout(x, 0.5); }
#else
auto f(const DTensor<float, 2, Mesh, Replicate>& x) { return dropout(x, 0.5); }
#endif
