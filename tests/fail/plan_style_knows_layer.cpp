// A style that shards linear layers on a module that has none.
// expect-error: shardwise::parallelize_module: \[Q4\] the style does not know this layer: ColwiseParallel and RowwiseParallel shard linear and embedding layers
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = parallelize_plan(""_path = ColwiseParallel{});
#else
constexpr auto plan = parallelize_plan("net*"_path = ColwiseParallel{.output_layouts = Replicate{}});
#endif

auto parallelized(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
