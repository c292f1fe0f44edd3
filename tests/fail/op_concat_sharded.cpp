// concat along a dimension whose parts lie on other ranks.
// expect-error: shardwise::concat: \[O18\] the dimension is not sharded; redistribute
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return concat<0>(x, x); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return concat<1>(x, x); }
#endif
