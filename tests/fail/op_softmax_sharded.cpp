// softmax over a dimension that no rank has whole.
// expect-error: shardwise::softmax: \[O12\] the dimension is whole on every rank
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x) { return softmax(x); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x) { return softmax<0>(x); }
#endif
