// A rule of a strict plan that matches no module.
// expect-error: shardwise::parallelize_module: \[Q5\] a rule of a strict plan matches no module; mend its pattern or drop it
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
  auto operator()(const auto& x) const { return net2(relu(net1(x))); }
};
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = strict(parallelize_plan("net1"_path = ColwiseParallel{}, "net3"_path = RowwiseParallel{}));
#else
constexpr auto plan = strict(parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{}));
#endif

auto parallelized(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
