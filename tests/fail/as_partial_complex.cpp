// [V3]: complex numbers have no order.
// expect-error: shardwise::as_partial: \[V3\] complex numbers have no maximum and no minimum
#include <complex>

#include <shardwise/core.hpp>
#include <shardwise/redistribute/as_partial.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<std::complex<float>, 2, Line, Replicate>& x) { return as_partial<Max>(x); }
#else
auto f(const DTensor<std::complex<float>, 2, Line, Replicate>& x) { return as_partial<Product>(x); }
#endif
