// ME-7 [M3]: the place on an axis that is not there.
// expect-error: shardwise::DeviceMesh: \[M3\] no axis has this name; the mesh\'s type lists its axes
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Mesh& mesh) { return mesh.local_rank<"pp">(); }
#else
auto f(const Mesh& mesh) { return mesh.local_rank<"tp">(); }
#endif
