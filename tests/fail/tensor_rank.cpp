// [S1]: nine dimensions.
// expect-error: shardwise::Tensor: \[S1\] at most 8 dimensions
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
bool f(const Tensor<float, 9>& x) { return x.defined(); }
#else
bool f(const Tensor<float, 8>& x) { return x.defined(); }
#endif
