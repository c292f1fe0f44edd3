// A tensor that could be written on a map of elements that cannot.
// expect-error: shardwise::view: \[E3\] a tensor can be written, and the matrix is const or a temporary; copy it
// needs: eigen
#include <shardwise/core.hpp>
#include <shardwise/ops/eigen.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(const Eigen::Map<const Eigen::VectorXf>& v) { return view(v); }
#else
auto f(const Eigen::Map<Eigen::VectorXf>& v) { return view(v); }
#endif
