// A number where a style belongs.
// expect-error: shardwise::parallelize_module: \[Q7\] a rule.s right-hand side is a style; see the concept ParallelStyle
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = parallelize_plan("net1"_path = 1);
#else
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{});
#endif

auto parallelized(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
