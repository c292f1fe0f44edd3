// DS-7 [P4]: a sum and a maximum pending on one tensor.
// expect-error: shardwise::from_local: \[P4\] pending reductions of one tensor are alike; only Sum and Avg mix
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Mesh& mesh) { return from_local<Partial<Sum>, Partial<Max>>(x, mesh); }
#else
auto f(const Tensor<float, 2>& x, const Mesh& mesh) { return from_local<Partial<Sum>, Partial<Avg>>(x, mesh); }
#endif
