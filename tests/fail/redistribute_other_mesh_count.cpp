// [P1]: the placements are those of the mesh that the tensor goes to.
// expect-error: shardwise::redistribute: \[P1\] one placement per mesh axis
#include <shardwise/core.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "r">;
using Grid = DeviceMesh<ThreadCommunicator, "dp", "tp">;

#if SHARDWISE_EXPECT_FAIL
void f(const DTensor<float, 2, Line, Shard<0>>& x, const Grid& mesh) { redistribute<Shard<0>>(x, mesh); }
#else
void f(const DTensor<float, 2, Line, Shard<0>>& x, const Grid& mesh) { redistribute<Shard<0>, Replicate>(x, mesh); }
#endif
