// [V2]: a maximum of sums is no sum of maxima.
// expect-error: shardwise::as_partial: \[V2\] pending reductions of one tensor are alike; only Sum and Avg mix
#include <shardwise/core.hpp>
#include <shardwise/redistribute/as_partial.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using X = DTensor<float, 2, Mesh, Partial<Sum>, Replicate>;

#if SHARDWISE_EXPECT_FAIL
auto f(const X& x) { return as_partial<On<"tp", Partial<Max>>>(x); }
#else
auto f(const X& x) { return as_partial<On<"tp", Partial<Avg>>>(x); }
#endif
