// [P8]: a pending sum on another mesh.
// expect-error: shardwise::redistribute: \[P8\] a pending reduction stays on its mesh
#include <shardwise/core.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "r">;
using Grid = DeviceMesh<ThreadCommunicator, "dp", "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Shard<0>>& x, const Grid& mesh) {
  return redistribute<Shard<0>, Partial<>>(x, mesh);
}
#else
auto f(const DTensor<float, 2, Line, Shard<0>>& x, const Grid& mesh) {
  return redistribute<Shard<0>, Shard<1>>(x, mesh);
}
#endif
