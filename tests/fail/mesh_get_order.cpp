// ME-19 [M4]: axes in another order than the mesh has them.
// expect-error: shardwise::DeviceMesh::get: \[M4\] axes are named in the mesh\'s own order, each once
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const Mesh& mesh) { return mesh.get<"tp", "dp">(); }
#else
auto f(const Mesh& mesh) { return mesh.get<"dp", "tp">(); }
#endif
