// expect-error: shardwise::transpose: \[O30\] both dimensions stand in angle brackets
// needs: eigen
#include <shardwise/ops/shape.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x) { return transpose(x, 0, 1); }
#else
auto f(const Tensor<float, 2>& x) { return transpose<0, 1>(x); }
#endif
