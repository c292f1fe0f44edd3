// expect-error: shardwise::allclose: \[E1\] plain tensors are compared
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

bool f(const Tensor<float, 2>& a, const DTensor<float, 2, Mesh, Shard<0>>& b) {
#if SHARDWISE_EXPECT_FAIL
  return allclose(a, b, {.rtol = 1e-3});
#else
  return allclose(a, b.full_tensor(), {.rtol = 1e-3});
#endif
}
