// relu of a sum is not the sum of relus.
// expect-error: shardwise::relu: \[O5\] relu of a pending reduction is not the reduction of relu; redistribute<Replicate>
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<>>& x) { return relu(x); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return relu(x); }
#endif
