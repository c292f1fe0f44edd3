// The terms of a pending sum rounded to integers.
// expect-error: shardwise::cast: \[O27\] the terms of a pending reduction are not rounded to integers one by one
#include <shardwise/core.hpp>
#include <shardwise/ops/cast.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 1, Mesh, Partial<>>& x) { return cast<std::int32_t>(x); }
#else
auto f(const DTensor<float, 1, Mesh, Partial<>>& x) { return cast<double>(x); }
#endif
