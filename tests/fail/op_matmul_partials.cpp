// MM-5: a product of two sums is not the sum of products.
// expect-error: shardwise::matmul: \[O6\] the placements do not fit
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<>>& a, const DTensor<float, 2, Mesh, Partial<>>& b) {
  return matmul(a, b);
}
#else
auto f(const DTensor<float, 2, Mesh, Partial<>>& a, const DTensor<float, 2, Mesh, Replicate>& b) {
  return matmul(a, b);
}
#endif
