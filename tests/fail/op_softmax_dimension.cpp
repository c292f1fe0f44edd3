// softmax over a dimension that does not exist.
// expect-error: shardwise::softmax: \[O11\] the dimension exists in the tensor
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x) { return softmax<2>(x); }
#else
auto f(const Tensor<float, 2>& x) { return softmax<-2>(x); }
#endif
