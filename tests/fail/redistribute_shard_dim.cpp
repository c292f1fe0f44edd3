// [P2]: a matrix has no dimension 2 to shard.
// The result is used: the first error says the same.
// expect-error: shardwise::redistribute: \[P2\] the shard dimension exists in the tensor; choose one from -rank to rank - 1
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) {
  const auto y = redistribute<Shard<2>, Replicate>(x);
  return y.size();
}
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>, Replicate>& x) {
  const auto y = redistribute<Shard<-2>, Replicate>(x);
  return y.size();
}
#endif
