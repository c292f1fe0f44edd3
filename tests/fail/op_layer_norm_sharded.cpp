// layer_norm over features that no rank has whole.
// expect-error: shardwise::norm: \[O15\] the last dimension is whole on every rank
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<1>>& x) { return layer_norm(x); }
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& x) { return layer_norm(x); }
#endif
