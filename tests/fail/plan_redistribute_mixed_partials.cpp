// expect-error: shardwise::plan_redistribute: \[P4\] pending reductions of one tensor are alike
#include <shardwise/core.hpp>
using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
using From = Placements<Partial<Sum>, Partial<Max>>;
#else
using From = Placements<Partial<Sum>, Partial<Avg>>;
#endif
constexpr auto steps = plan_redistribute<From, Placements<Replicate, Replicate>>({4, 2});
static_assert(steps.size() <= 2);
