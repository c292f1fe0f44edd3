// [P3]: the output waits for a reduction that the input is not.
// expect-error: shardwise::redistribute_into: \[P3\] the target is Partial where the source is not
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
void f(const DTensor<float, 2, Line, Replicate>& x, DTensor<float, 2, Line, Partial<Max>>& y) {
  redistribute_into(x, y);
}
#else
void f(const DTensor<float, 2, Line, Replicate>& x, DTensor<float, 2, Line, Partial<Sum>>& y) {
  redistribute_into(x, y);
}
#endif
