// A matrix of what is no element type.
// expect-error: shardwise::view: \[E4\] the scalar of the matrix is an element type; cast the matrix
// needs: eigen
#include <shardwise/core.hpp>
#include <shardwise/ops/eigen.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(Eigen::Matrix<long double, Eigen::Dynamic, 1>& v) { return view(v); }
#else
auto f(Eigen::Matrix<double, Eigen::Dynamic, 1>& v) { return view(v); }
#endif
