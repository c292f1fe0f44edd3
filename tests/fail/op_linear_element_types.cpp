// A model of floats that is fed doubles.
// expect-error: shardwise::linear: \[O20\] input and weight have one element type; cast<T>\(x\)
// needs: eigen
#include <shardwise/nn/layers.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const nn::Linear<Unsharded<float>>& layer, const Tensor<double, 2>& x) { return relu(layer(x)); }
#else
auto f(const nn::Linear<Unsharded<float>>& layer, const Tensor<float, 2>& x) { return relu(layer(x)); }
#endif
