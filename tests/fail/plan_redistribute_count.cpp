// expect-error: shardwise::plan_redistribute: \[P1\] one placement per mesh axis, before and after
#include <shardwise/core.hpp>
using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
constexpr auto steps = plan_redistribute<Placements<Shard<0>>, Placements<Replicate>>({4, 2});
#else
constexpr auto steps = plan_redistribute<Placements<Shard<0>>, Placements<Replicate>>({4});
#endif
static_assert(steps.size() <= 1);
