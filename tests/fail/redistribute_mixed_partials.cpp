// DS-7 [P4]: a sum and a maximum pending on one tensor.
// expect-error: shardwise::redistribute: \[P4\] pending reductions of one tensor are alike; only Sum and Avg mix
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Replicate, Partial<Max>>& x) {
  return redistribute<Partial<Sum>, Partial<Max>>(x);
}
#else
auto f(const DTensor<float, 2, Mesh, Replicate, Partial<Avg>>& x) {
  return redistribute<Partial<Sum>, Partial<Avg>>(x);
}
#endif
