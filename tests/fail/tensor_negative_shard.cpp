// [S2]: a type is spelled with dimensions counted from the front.
// expect-error: shardwise::DTensor: \[S2\] a tensor type has one placement per mesh axis
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
bool f(const DTensor<float, 2, Line, Shard<-1>>& x) { return x.defined(); }
#else
bool f(const DTensor<float, 2, Line, Normalized<Shard<-1>, 2>>& x) { return x.defined(); }
#endif
