// A layer with a style, given what its weight does not fit: no more lines than without a style.
// expect-error: shardwise::linear: \[O8\] the placements of input and weight do not fit
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan =
    parallelize_plan("net1"_path = ColwiseParallel{.use_local_output = false}, "net2"_path = SequenceParallel{});
#else
constexpr auto plan =
    parallelize_plan("net1"_path = ColwiseParallel{.use_local_output = false}, "net2"_path = RowwiseParallel{});
#endif

auto f(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh)(ones<float>({2, 2})); }
