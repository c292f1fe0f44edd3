// A sum over a dimension that does not exist.
// expect-error: shardwise::sum: \[O11\] the dimension exists in the tensor; choose one from -rank to rank - 1
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<float, 2>& x) { return sum<2>(x); }
#else
auto f(const Tensor<float, 2>& x) { return sum<1>(x); }
#endif
