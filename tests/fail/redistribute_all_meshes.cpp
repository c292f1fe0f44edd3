// [L1]: ranks of one mesh meet in a call, not those of two.
// expect-error: shardwise::redistribute_all: \[L1\] the tensors of one call lie on one mesh; move those of another mesh in a call of their own
#include <shardwise/core.hpp>
#include <shardwise/redistribute/all.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

using X = DTensor<float, 2, Line, Shard<0>>;
using Y = DTensor<double, 2, Mesh, Shard<0>, Replicate>;

#if SHARDWISE_EXPECT_FAIL
void f(const X& x, const Y& y) { redistribute_all(to<Shard<1>>(x), to<On<"tp", Shard<1>>>(y)); }
#else
void f(const X& x, const Y& y) {
  redistribute_all(to<Shard<1>>(x));
  redistribute_all(to<On<"tp", Shard<1>>>(y));
}
#endif
