// [Y8]: a matrix has no dimension 5.
// expect-error: shardwise::parallelize_module: \[Y8\] the shard dimension of a layout exists in the tensor
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{.output_layouts = Shard<5>{}});
#else
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{.output_layouts = Shard<1>{}});
#endif

auto f(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh)(ones<float>({2, 2})); }
