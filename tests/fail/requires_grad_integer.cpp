// [G1]: integers have no gradient.
// expect-error: shardwise::requires_grad: \[G1\] gradients exist for real and complex floating point only
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
void f(Tensor<std::int32_t, 2>& x) { x.requires_grad(true); }
#else
void f(Tensor<double, 2>& x) { x.requires_grad(true); }
#endif
