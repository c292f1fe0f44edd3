// expect-error: shardwise::mean: \[O29\] integers have no mean
// needs: eigen
#include <shardwise/ops/reduction.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<std::int64_t, 2>& x) { return mean<0>(x); }
#else
auto f(const Tensor<std::int64_t, 2>& x) { return sum<0>(x); }
#endif
