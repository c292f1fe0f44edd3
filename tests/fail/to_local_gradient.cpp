// [L1]: the gradient of a shard declared replicated.
// expect-error: shardwise::to_local: \[L1\] the gradient of a shard is sharded alike, of anything else Replicate or Partial<>
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return to_local<Replicate>(x); }
#else
auto f(const DTensor<float, 2, Line, Replicate>& x) { return to_local<Partial<>>(x); }
#endif
