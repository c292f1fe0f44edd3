// ME-17 [M2]: two axes of one name.
// expect-error: shardwise::DeviceMesh: \[M2\] axis names differ from each other
#include <shardwise/core.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "dp", "tp">;
using Line = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
using Twice = DeviceMesh<ThreadCommunicator, "tp", "tp">;
void f(const Twice& mesh) { (void)mesh.size(); }
#else
void f(const Mesh& mesh) { (void)mesh.size(); }
#endif
