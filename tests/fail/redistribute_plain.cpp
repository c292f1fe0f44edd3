// [P5]: a plain tensor lies on no mesh.
// expect-error: shardwise::redistribute: \[P5\] a plain tensor lies on no mesh; bring it there with distribute_tensor<P...>\(x, mesh\)
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
void f(const Tensor<float, 2>& x) { redistribute<Shard<0>>(x); }
#else
auto f(const DTensor<float, 2, Line, Replicate>& x) { return redistribute<Shard<0>>(x); }
#endif
