// [P7]: meshes of different kinds of communicators.
// expect-error: shardwise::redistribute: \[P7\] both meshes are of one kind of communicator
#include <shardwise/core.hpp>

#include <shardwise/comm/dry_run.hpp>

using namespace shardwise;
using Line = DeviceMesh<ThreadCommunicator, "r">;
using Planned = DeviceMesh<DryRunCommunicator, "r">;

#if SHARDWISE_EXPECT_FAIL
void f(const DTensor<float, 2, Line, Shard<0>>& x, const Planned& mesh) { redistribute<Shard<1>>(x, mesh); }
#else
void f(const DTensor<float, 2, Line, Shard<0>>& x, const Line& mesh) { redistribute<Shard<1>>(x, mesh); }
#endif
