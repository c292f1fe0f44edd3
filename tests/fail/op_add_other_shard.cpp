// Two shards of different dimensions.
// expect-error: shardwise::arithmetic: \[O2\] the placements of the operands do not fit; redistribute one
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x, const DTensor<float, 2, Mesh, Shard<1>>& y) { return x + y; }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x, const DTensor<float, 2, Mesh, Shard<0>>& y) { return x + y; }
#endif
