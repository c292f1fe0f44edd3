// expect-error: shardwise::plan_redistribute: \[P6\] tensors lie on meshes of at most 8 axes
#include <shardwise/core.hpp>
using namespace shardwise;

template <class P>
using Eight = Placements<P, P, P, P, P, P, P, P>;
template <class P>
using Nine = Placements<P, P, P, P, P, P, P, P, P>;

#if SHARDWISE_EXPECT_FAIL
constexpr auto steps = plan_redistribute<Nine<Shard<0>>, Nine<Replicate>>({1, 1, 1, 1, 1, 1, 1, 1, 2});
#else
constexpr auto steps = plan_redistribute<Eight<Shard<0>>, Eight<Replicate>>({1, 1, 1, 1, 1, 1, 1, 2});
#endif
static_assert(steps.size() <= 1);
