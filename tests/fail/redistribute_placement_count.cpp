// RD-53 [P1]: one placement for a mesh of two axes.
// The result is used: the first error says the same.
// expect-error: shardwise::redistribute: \[P1\] one placement per mesh axis; write as many as the mesh has axes, or On<
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) {
  const auto y = redistribute<Replicate>(x);
  return y.size();
}
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) {
  const auto y = redistribute<Replicate, Replicate>(x);
  return y.size();
}
#endif
