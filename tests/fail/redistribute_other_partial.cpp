// RD-19 RD-31 [P3]: a pending sum is no pending maximum.
// expect-error: shardwise::redistribute: \[P3\] the target is Partial where the source is not; redistribute to Replicate or Shard, or say as_partial<Op>
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Partial<Sum>>& x) { return redistribute<Partial<Max>>(x); }
#else
auto f(const DTensor<float, 2, Line, Partial<Max>>& x) { return redistribute<Partial<Max>>(x); }
#endif
