// Targets that are probabilities.
// expect-error: shardwise::cross_entropy: \[O28\] a target is the std::int64_t index of a class
// needs: eigen
#include <shardwise/ops/softmax.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Tensor<float, 2>& target) {
  return cross_entropy(x, target, {.label_smoothing = 0.1});
}
#else
auto f(const Tensor<float, 2>& x, const Tensor<std::int64_t, 1>& target) {
  return cross_entropy(x, target, {.label_smoothing = 0.1});
}
#endif
