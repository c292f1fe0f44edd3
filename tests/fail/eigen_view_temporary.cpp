// A tensor on a matrix that is gone at the end of the line.
// expect-error: shardwise::view: \[E3\] a tensor can be written, and the matrix is const or a temporary; copy it
// needs: eigen
#include <shardwise/core.hpp>
#include <shardwise/ops/eigen.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f() { return view(Eigen::VectorXf(Eigen::VectorXf::Ones(3))); }
#else
auto f(Eigen::VectorXf& v) { return view(v); }
#endif
