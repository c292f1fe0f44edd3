// [P1]: one placement per axis, for every tensor.
// expect-error: shardwise::redistribute: \[P1\] one placement per mesh axis; write as many as the mesh has axes, or On<"axis", P>
#include <shardwise/core.hpp>
#include <shardwise/redistribute/all.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) { return redistribute_all(to<Shard<1>>(x)); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) { return redistribute_all(to<Shard<1>, Shard<0>>(x)); }
#endif
