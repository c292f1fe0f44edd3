// RD-9 RD-20 [P3]: a value does not become a pending product by itself.
// expect-error: shardwise::redistribute: \[P3\] the target is Partial where the source is not
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Replicate>& x) { return redistribute<On<"tp", Partial<Product>>>(x); }
#else
auto f(const DTensor<float, 2, Line, Replicate>& x) { return redistribute<On<"tp", Partial<>>>(x); }
#endif
