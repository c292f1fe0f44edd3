// [V1]: a shard is no value that every rank holds.
// expect-error: shardwise::as_partial: \[V1\] terms are made of what every rank of the axis holds; redistribute the axis to Replicate first, or say from_local<Partial<Op>>\(x.to_local\(\), mesh\) where every rank's part is a term
#include <shardwise/core.hpp>
#include <shardwise/redistribute/as_partial.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return as_partial<Max>(x); }
#else
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return as_partial<Max>(redistribute<Replicate>(x)); }
#endif
