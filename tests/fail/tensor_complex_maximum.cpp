// expect-error: shardwise::DTensor: \[S4\] complex numbers have no order
#include <complex>
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

void f(const Mesh& mesh, const Tensor<std::complex<float>, 1>& x) {
#if SHARDWISE_EXPECT_FAIL
  (void)from_local<Partial<Max>>(x, mesh);
#else
  (void)from_local<Partial<Product>>(x, mesh);
#endif
}
