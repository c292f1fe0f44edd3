// [Q9]: a model that is no template, so that it cannot go anywhere.
// expect-error: shardwise::parallelize_module: \[Q9\] the model is a template over its scope alone and still on one device
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});

struct Fixed {
  Mlp<> mlp;
  auto operator()(const auto& x) const { return mlp(x); }
};
#if SHARDWISE_EXPECT_FAIL
using Model = Fixed;
#else
using Model = Mlp<>;
#endif

auto f(const Model& model, const Mesh& mesh) {
  const auto parallel = parallelize_module<plan>(model, mesh);
  return parallel(ones<float>({2, 2}));
}
