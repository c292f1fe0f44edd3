// A rule that tells the indices of a ChildList apart.
// expect-error: shardwise::parallelize_module: \[Q3\] a rule tells the indices of a ChildList apart; use ChildArray<Scope, name, Module, N>
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
    parallelize_plan("layers.0.net1"_path = ColwiseParallel{}, "layers.*.net2"_path = RowwiseParallel{});
#else
constexpr auto plan =
    parallelize_plan("layers.*.net1"_path = ColwiseParallel{}, "layers.*.net2"_path = RowwiseParallel{});
#endif

template <class Scope = Unsharded<float>>
struct Stacked {
  ChildList<Scope, "layers", Mlp> layers;
};
auto parallelized(const Stacked<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
