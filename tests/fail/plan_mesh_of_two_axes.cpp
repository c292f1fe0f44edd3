// A mesh of two axes.
// expect-error: shardwise::parallelize_module: \[Q1\] plans work on one mesh axis; give the sub-mesh of that axis: mesh.get<"tp">\(\)
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
const auto& one_axis(const auto& mesh) { return mesh; }
#else
auto one_axis(const auto& mesh) { return mesh.template get<"tp">(); }
#endif

using Grid = decltype(init_device_mesh<"dp", "tp">(std::declval<ThreadCommunicator>(), {2, 2}));
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});
auto parallelized(const Mlp<>& model, const Grid& mesh) { return parallelize_module<plan>(model, one_axis(mesh)); }
