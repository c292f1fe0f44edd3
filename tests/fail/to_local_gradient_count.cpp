// [P1]: one gradient placement for a mesh of two axes.
// expect-error: shardwise::to_local: \[P1\] one gradient placement per mesh axis
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) { return to_local<Shard<0>>(x); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) { return to_local<Shard<0>, Partial<>>(x); }
#endif
