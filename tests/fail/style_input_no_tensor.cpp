// [Y7]: a layer with a style that is given a number.
// expect-error: shardwise::parallelize_module: \[Y7\] a layer with a style takes a tensor
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
inline constexpr auto input = 1.0f;
#else
inline const auto input = ones<float>({2, 2});
#endif

constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{});
auto f(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh)(input); }
