// A module that is a member as it is, on its way to a mesh.
// expect-error: shardwise::parallelize_module: \[Q6\] a member follows the scope without a name of its own: a module in a module is a Child<Scope, "name", Module>; many are a ChildList or a ChildArray, no std::vector and no std::array
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

using namespace shardwise;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

template <class Scope = Unsharded<float>>
struct Model {
  Child<Scope, "linear", nn::Linear> linear;
#if SHARDWISE_EXPECT_FAIL
  nn::ReLU<Scope> relu;
#else
  Child<Scope, "relu", nn::ReLU> relu;
#endif
};

constexpr auto plan = parallelize_plan("linear"_path = ColwiseParallel{});

auto parallelized(const Model<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
