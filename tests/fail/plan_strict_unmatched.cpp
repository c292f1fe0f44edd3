// A rule of a strict plan that matches no module.
// expect-error: shardwise::parallelize_module: \[Q5\] a rule of a strict plan matches no module; mend its pattern or drop it
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = strict(parallelize_plan("net1"_path = ColwiseParallel{}, "net3"_path = RowwiseParallel{}));
#else
constexpr auto plan = strict(parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{}));
#endif

auto parallelized(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
