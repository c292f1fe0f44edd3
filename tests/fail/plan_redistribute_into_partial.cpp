// expect-error: shardwise::plan_redistribute: \[P3\] the target is Partial where the source is not
#include <shardwise/core.hpp>
using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
constexpr auto steps = plan_redistribute<Placements<Replicate>, Placements<Partial<Max>>>({4});
#else
constexpr auto steps = plan_redistribute<Placements<Partial<Max>>, Placements<Replicate>>({4});
#endif
static_assert(steps.size() == 1);
