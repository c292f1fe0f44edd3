// [P8]: the output lies on another mesh and waits for a reduction.
// expect-error: shardwise::redistribute_into: \[P8\] a pending reduction stays on its mesh
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
void f(const DTensor<float, 2, Line, Partial<>>& x, DTensor<float, 2, Mesh, Replicate, Partial<>>& y) {
  redistribute_into(x, y);
}
#else
void f(const DTensor<float, 2, Line, Partial<>>& x, DTensor<float, 2, Mesh, Replicate, Replicate>& y) {
  redistribute_into(x, y);
}
#endif
