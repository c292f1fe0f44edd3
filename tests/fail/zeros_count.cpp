// [P1]: no placement for a mesh of one axis.
// expect-error: shardwise::zeros: \[P1\] one placement per mesh axis: zeros<float, Shard<0>>\(mesh, shape\)
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Mesh& mesh) { return zeros<float, Shard<0>>(mesh, {4, 4}); }
#else
auto f(const Mesh& mesh) { return zeros<float, Shard<0>, Shard<1>>(mesh, {4, 4}); }
#endif
