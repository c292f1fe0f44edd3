// gelu of complex numbers.
// expect-error: shardwise::gelu.*: \[O21\] gelu.* is defined for real floating point
// needs: eigen
#include <complex>
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<std::complex<float>, 2>& x) { return gelu(x); }
#else
auto f(const Tensor<std::complex<float>, 2>& x) { return x * x; }
#endif
