// [Q10]: a communicator is no mesh.
// expect-error: shardwise::parallelize_module: \[Q10\] the second argument is a mesh: init_device_mesh<"tp">\(world, \{4\}\)
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
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
