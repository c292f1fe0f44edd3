// [Y6]: several layouts for a style of one input.
// expect-error: shardwise::ColwiseParallel: \[Y6\] a layout of this style is one placement, such as Replicate\{\} or Shard<0>\{\}
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{.output_layouts = Layouts{Replicate{}}});
#else
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{.output_layouts = Replicate{}});
#endif

auto f(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh)(ones<float>({2, 2})); }
