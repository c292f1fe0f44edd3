// [P2]: a matrix has no dimension 2.
// expect-error: shardwise::from_local: \[P2\] the shard dimension exists in the tensor; choose one from -rank to rank - 1
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Line& mesh) { return from_local<Shard<2>>(x, mesh); }
#else
auto f(const Tensor<float, 2>& x, const Line& mesh) { return from_local<Shard<1>>(x, mesh); }
#endif
