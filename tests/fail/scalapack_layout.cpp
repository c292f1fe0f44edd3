// [C2]: a layout that ScaLAPACK has not.
// expect-error: shardwise::from_scalapack: \[C2\] ScaLAPACK deals rows to one mesh axis and columns to another
#include <shardwise/core.hpp>

#include <shardwise/io/scalapack.hpp>

using namespace shardwise;
using Grid = DeviceMesh<ThreadCommunicator, "row", "column">;

#if SHARDWISE_EXPECT_FAIL
void f(const double* local, const Grid& mesh) { from_scalapack<BlockCyclic<0, 64>, Shard<1>>(local, 8, {8, 8}, mesh); }
#else
void f(const double* local, const Grid& mesh) {
  from_scalapack<BlockCyclic<0, 64>, BlockCyclic<1, 64>>(local, 8, {8, 8}, mesh);
}
#endif
