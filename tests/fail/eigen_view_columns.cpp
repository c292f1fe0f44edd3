// A column-major matrix as a tensor.
// expect-error: shardwise::view: \[E2\] the matrix is column-major and tensors are row-major; declare it with Eigen::RowMajor
// needs: eigen
#include <shardwise/core.hpp>
#include <shardwise/ops/eigen.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
auto f(Eigen::MatrixXf& m) { return view(m); }
#else
auto f(Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>& m) { return view(m); }
#endif
