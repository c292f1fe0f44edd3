// [Y7]: a layer with a style that is given a number.
// expect-error: shardwise::parallelize_module: \[Y7\] a layer with a style takes a tensor
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
inline constexpr auto input = 1.0f;
#else
inline const auto input = ones<float>({2, 2});
#endif

constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{});
auto f(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh)(input); }
