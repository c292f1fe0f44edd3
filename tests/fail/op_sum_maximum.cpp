// A sum of maxima.
// expect-error: shardwise::sum: \[O10\] the sum of a pending maximum, minimum or product is not theirs
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Partial<Max>>& x) { return sum(x); }
#else
auto f(const DTensor<float, 2, Mesh, Partial<Avg>>& x) { return sum(x); }
#endif
