// AP-5 [D1]: a tensor that is distributed already, with other placements.
// expect-error: shardwise::distribute_tensor: \[D1\] the tensor is distributed already, with other placements; use redistribute<P...>\(x\)
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return distribute_tensor<Shard<1>>(x, x.mesh()); }
#else
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return distribute_tensor<Shard<0>>(x, x.mesh()); }
#endif
