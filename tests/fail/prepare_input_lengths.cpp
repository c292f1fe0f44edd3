// Lists of layouts of different length.
// expect-error: shardwise::PrepareModuleInput: \[Y2\] input_layouts and desired_input_layouts have the same length
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
    PrepareModuleInput{.input_layouts = Shard<0>{}, .desired_input_layouts = Layouts{Replicate{}, None{}}};
#else
constexpr auto style = PrepareModuleInput{.input_layouts = Layouts{Shard<0>{}, None{}},
                                          .desired_input_layouts = Layouts{Replicate{}, None{}}};
#endif

static_assert(parallelize_plan("net1"_path = style).size == 1);
