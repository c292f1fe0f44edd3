// [P2]: a matrix has no dimension 2.
// expect-error: shardwise::redistribute: \[P2\] the shard dimension exists in the tensor; choose one from -rank to rank - 1
#include <shardwise/core.hpp>
#include <shardwise/redistribute/async.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return redistribute_async<Shard<2>>(x); }
#else
auto f(const DTensor<float, 2, Line, Shard<0>>& x) { return redistribute_async<On<"tp", Shard<-1>>>(x); }
#endif
