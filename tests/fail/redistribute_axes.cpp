// [P6]: a mesh of nine axes.
// expect-error: shardwise::redistribute: \[P6\] tensors lie on meshes of at most 8 axes
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "a", "b", "c", "d", "e", "f", "g", "h", "i">;
using Smaller = DeviceMesh<ThreadCommunicator, "a", "b", "c", "d", "e", "f", "g", "h">;
using R = Replicate;

#if SHARDWISE_EXPECT_FAIL
void f(const DTensor<float, 2, Mesh, R, R, R, R, R, R, R, R, Shard<0>>& x) {
  (void)redistribute<On<"i", Replicate>>(x);
}
#else
void f(const DTensor<float, 2, Smaller, R, R, R, R, R, R, R, Shard<0>>& x) {
  (void)redistribute<On<"h", Replicate>>(x);
}
#endif
