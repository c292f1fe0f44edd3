// [L1]: the gradient of a shard declared pending.
// expect-error: shardwise::from_local: \[L1\] the gradient of a shard is sharded alike, of anything else Replicate or Partial<>
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Mesh& m) { return from_local<WithGradient<Shard<0>, Partial<>>>(x, m); }
#else
auto f(const Tensor<float, 2>& x, const Mesh& m) { return from_local<WithGradient<Replicate, Partial<>>>(x, m); }
#endif
