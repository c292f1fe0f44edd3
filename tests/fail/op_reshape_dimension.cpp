// A reshape that loses the sharded dimension.
// expect-error: shardwise::reshape: \[O25\] a sharded dimension does not exist in the result; name its placement
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x) { return reshape(x, {12}); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x) { return reshape<Shard<0>>(x, {12}); }
#endif
