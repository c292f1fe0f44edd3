// PW-3: a product of two sums is not the sum of products.
// expect-error: shardwise::arithmetic: \[O2\] the placements of the operands do not fit
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<>>& x, const DTensor<float, 2, Mesh, Partial<>>& y) { return x * y; }
#else
auto f(const DTensor<float, 2, Mesh, Partial<>>& x, const DTensor<float, 2, Mesh, Replicate>& y) { return x * y; }
#endif
