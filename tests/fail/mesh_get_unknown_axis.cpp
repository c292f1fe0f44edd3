// ME-19 [M3]: the mesh has no axis "pp".
// expect-error: shardwise::DeviceMesh::get: \[M3\] no axis has this name; the mesh\'s type lists its axes
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Mesh& mesh) { return mesh.get<"pp">(); }
#else
auto f(const Mesh& mesh) { return mesh.get<"tp">(); }
#endif
