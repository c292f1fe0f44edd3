// [P5]: a plain tensor lies on no mesh.
// expect-error: shardwise::redistribute: \[P5\] a plain tensor lies on no mesh; bring it there with distribute_tensor<P...>\(x, mesh\)
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x) {
  const auto y = redistribute<Shard<0>>(x);
  return y.mesh().size();
}
#else
auto f(const DTensor<float, 2, Line, Replicate>& x) {
  const auto y = redistribute<Shard<0>>(x);
  return y.mesh().size();
}
#endif
