// Indices of 32 bits.
// expect-error: shardwise::embedding: \[O28\] an index is a std::int64_t; cast<std::int64_t>\(index\)
// needs: eigen
#include <shardwise/nn/layers.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const nn::Embedding<Unsharded<float>>& layer, const Tensor<std::int32_t, 1>& x) { return relu(layer(x)); }
#else
auto f(const nn::Embedding<Unsharded<float>>& layer, const Tensor<std::int64_t, 1>& x) { return relu(layer(x)); }
#endif
