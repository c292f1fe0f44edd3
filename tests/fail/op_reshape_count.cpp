// A reshape with more placements than axes.
// expect-error: shardwise::reshape: \[P1\] one placement per mesh axis
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return reshape<Shard<0>, Shard<1>>(x, {3, 4}); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return reshape<Shard<0>>(x, {3, 4}); }
#endif
