// [Q9]: a model that is no template, so that it cannot go anywhere.
// expect-error: shardwise::parallelize_module: \[Q9\] the model is a template over its scope alone and still on one device
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
