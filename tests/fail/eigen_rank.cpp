// Eigen has no tensors of rank 3.
// expect-error: shardwise::as_eigen: \[E1\] Eigen has vectors and matrices: rank 1 or 2; reshape\(x, shape\) first
// needs: eigen
#include <shardwise/core.hpp>
#include <shardwise/ops/eigen.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
void f(const Tensor<float, 3>& x) { (void)as_eigen(x); }
#else
void f(const Tensor<float, 2>& x) { (void)as_eigen(x); }
#endif
