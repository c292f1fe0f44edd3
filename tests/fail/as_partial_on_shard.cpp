// [V4]: what as_partial makes is a Partial.
// expect-error: shardwise::as_partial: \[V4\] the placement is a Partial; for others say redistribute<On<"axis", P>>\(x\)
#include <shardwise/core.hpp>
#include <shardwise/redistribute/as_partial.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Replicate>& x) { return as_partial<On<"tp", Shard<0>>>(x); }
#else
auto f(const DTensor<float, 2, Line, Replicate>& x) { return redistribute<On<"tp", Shard<0>>>(x); }
#endif
