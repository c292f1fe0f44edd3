// A column-wise layer fed with sharded features.
// expect-error: shardwise::linear: \[O8\] the placements of input and weight do not fit: a weight Shard<0> takes a replicated input
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x, const DTensor<float, 2, Mesh, Shard<0>>& w) { return linear(x, w); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x, const DTensor<float, 2, Mesh, Shard<1>>& w) { return linear(x, w); }
#endif
