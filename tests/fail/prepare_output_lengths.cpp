// Lists of layouts of different length.
// expect-error: shardwise::PrepareModuleOutput: \[Y3\] output_layouts and desired_output_layouts have the same length
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto style =
    PrepareModuleOutput{.output_layouts = Layouts{Replicate{}, None{}}, .desired_output_layouts = Shard<0>{}};
#else
constexpr auto style = PrepareModuleOutput{.output_layouts = Replicate{}, .desired_output_layouts = Shard<0>{}};
#endif

static_assert(parallelize_plan("net1"_path = style).size == 1);
