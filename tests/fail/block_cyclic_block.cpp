// [B1]: blocks without indices.
// expect-error: shardwise::BlockCyclic: \[B1\] a block has at least one index
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Mesh& mesh) { return zeros<float, BlockCyclic<0, 0>>(mesh, {4, 4}); }
#else
auto f(const Mesh& mesh) { return zeros<float, BlockCyclic<0, 1>>(mesh, {4, 4}); }
#endif
