// [Q11]: the plan as an argument, as in PyTorch.
// expect-error: shardwise::parallelize_module: \[Q11\] the plan stands in angle brackets
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
auto f(const Mlp<>& model, const Mesh& mesh) {
  const auto parallel = parallelize_module(model, mesh, plan);
#else
auto f(const Mlp<>& model, const Mesh& mesh) {
  const auto parallel = parallelize_module<plan>(model, mesh);
#endif
  return parallel(ones<float>({2, 2}));
}
