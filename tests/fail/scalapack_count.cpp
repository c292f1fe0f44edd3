// [C1]: one placement for a grid of two axes.
// expect-error: shardwise::from_scalapack: \[C1\] one placement per mesh axis
#include <shardwise/core.hpp>

#include <shardwise/io/scalapack.hpp>

using namespace shardwise;
using Grid = DeviceMesh<ThreadCommunicator, "row", "column">;

#if SHARDWISE_EXPECT_FAIL
void f(const double* local, const Grid& mesh) { from_scalapack<BlockCyclic<0, 64>>(local, 8, {8, 8}, mesh); }
#else
void f(const double* local, const Grid& mesh) { from_scalapack<BlockCyclic<0, 64>, Replicate>(local, 8, {8, 8}, mesh); }
#endif
