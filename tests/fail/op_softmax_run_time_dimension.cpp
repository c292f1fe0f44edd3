// expect-error: shardwise::softmax: \[O30\] the dimension stands in angle brackets
// needs: eigen
#include <shardwise/ops/softmax.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x) { return softmax(x, -1); }
#else
auto f(const Tensor<float, 2>& x) { return softmax<-1>(x); }
#endif
