// A complex number as a real one.
// expect-error: shardwise::cast: \[O26\] a complex number is not a real one
#include <complex>

#include <shardwise/core.hpp>
#include <shardwise/ops/cast.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Tensor<std::complex<float>, 1>& x) { return cast<float>(x); }
#else
auto f(const Tensor<std::complex<float>, 1>& x) { return cast<std::complex<double>>(x); }
#endif
