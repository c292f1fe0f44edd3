// [S2]: one placement for a mesh of two axes.
// expect-error: shardwise::DTensor: \[S2\] a tensor type has one placement per mesh axis
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
bool f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return x.defined(); }
#else
bool f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) { return x.defined(); }
#endif
