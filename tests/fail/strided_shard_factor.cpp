// [B2]: no pieces.
// expect-error: shardwise::StridedShard: \[B2\] the split factor is at least one
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Mesh& mesh) { return zeros<float, StridedShard<0, 0>>(mesh, {4, 4}); }
#else
auto f(const Mesh& mesh) { return zeros<float, StridedShard<0, 1>>(mesh, {4, 4}); }
#endif
