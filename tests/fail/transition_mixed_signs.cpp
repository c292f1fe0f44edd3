// [T1]: a dimension from the front and one from the end may be the same or not.
// expect-error: shardwise::transition: \[T1\] one shard dimension counts from the front and one from the end; normalise them with Normalized<P, R> first
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
constexpr auto c = transition<Shard<0>, Shard<-1>>::collective;
static_assert(c == Collective::all_to_all);
#else
constexpr auto c = transition<Shard<0>, Normalized<Shard<-1>, 2>>::collective;
static_assert(c == Collective::all_to_all);
#endif
