// expect-error: shardwise::equal: \[E1\] plain tensors are compared
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

bool f(const DTensor<float, 2, Mesh, Shard<0>>& a, const DTensor<float, 2, Mesh, Shard<0>>& b) {
#if SHARDWISE_EXPECT_FAIL
  return equal(a, b);
#else
  return equal(a.to_local(), b.to_local());
#endif
}
