// [P3]: no pending maximum is made of a value on the way either.
// expect-error: shardwise::redistribute: \[P3\] the target is Partial where the source is not; redistribute to Replicate or Shard, or say as_partial<Op>
#include <shardwise/core.hpp>
#include <shardwise/redistribute/async.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Replicate>& x) { return redistribute_async<Partial<Max>>(x); }
#else
auto f(const DTensor<float, 2, Line, Replicate>& x) { return redistribute_async<Shard<1>>(x); }
#endif
