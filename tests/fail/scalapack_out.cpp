// [C3]: a tensor that is not laid out as ScaLAPACK's.
// expect-error: shardwise::to_scalapack: \[C3\] ScaLAPACK holds block-cyclic matrices
#include <shardwise/core.hpp>

#include <shardwise/io/scalapack.hpp>

using namespace shardwise;
using Grid = DeviceMesh<ThreadCommunicator, "row", "column">;

#if SHARDWISE_EXPECT_FAIL
void f(const DTensor<float, 2, Grid, Shard<0>, Shard<1>>& x, float* local) { to_scalapack(x, local, 8); }
#else
void f(const DTensor<float, 2, Grid, Shard<0>, Shard<1>>& x, float* local) {
  to_scalapack(redistribute<BlockCyclic<0, 2>, BlockCyclic<1, 2>>(x), local, 8);
}
#endif
