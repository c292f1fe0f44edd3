// [B4]: the one offset of a part that lies at several places.
// expect-error: shardwise::local_offset: \[B4\] .*x\.global_index\(dimension, position\)
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, BlockCyclic<0, 64>>& x) { return x.local_offset()[0]; }
#else
auto f(const DTensor<float, 2, Mesh, BlockCyclic<0, 64>>& x) { return x.global_index(0, 0); }
#endif
