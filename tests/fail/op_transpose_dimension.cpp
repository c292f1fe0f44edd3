// A transposition of a dimension that does not exist.
// expect-error: shardwise::transpose: \[O11\] the dimension exists in the tensor
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return transpose<0, 2>(x); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return transpose<0, -1>(x); }
#endif
