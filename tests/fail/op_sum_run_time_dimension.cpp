// expect-error: shardwise::sum: \[O30\] the dimension stands in angle brackets: sum<0>\(x\)
// needs: eigen
#include <shardwise/ops/reduction.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x) { return sum(x, 0); }
#else
auto f(const Tensor<float, 2>& x) { return sum<0>(x); }
#endif
