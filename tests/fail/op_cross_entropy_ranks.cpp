// Targets of the rank of the logits.
// expect-error: shardwise::cross_entropy: \[O13\] logits are \(N, C, ...\) and targets \(N, ...\)
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x, const Tensor<std::int64_t, 2>& t) { return cross_entropy(x, t); }
#else
auto f(const Tensor<float, 3>& x, const Tensor<std::int64_t, 2>& t) { return cross_entropy(x, t); }
#endif
