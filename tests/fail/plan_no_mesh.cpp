// [Q10]: a communicator is no mesh.
// expect-error: shardwise::parallelize_module: \[Q10\] the second argument is a mesh: init_device_mesh<"tp">\(world, \{4\}\)
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
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});

#if SHARDWISE_EXPECT_FAIL
auto f(const Mlp<>& model, const ThreadCommunicator& world) {
  const auto parallel = parallelize_module<plan>(model, world);
#else
auto f(const Mlp<>& model, const ThreadCommunicator& world) {
  const auto parallel = parallelize_module<plan>(model, init_device_mesh<"tp">(world, {4}));
#endif
  return parallel(ones<float>({2, 2}));
}
