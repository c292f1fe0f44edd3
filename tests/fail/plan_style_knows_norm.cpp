// ColwiseParallel on a norm.
// expect-error: shardwise::parallelize_module: \[Q4\] the style does not know this layer: ColwiseParallel and RowwiseParallel shard linear and embedding layers
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
constexpr auto style = ColwiseParallel{};
#else
constexpr auto style = SequenceParallel{};
#endif

auto parallelized(const nn::LayerNorm<Unsharded<float>>& norm, const Mesh& mesh) {
  return parallelize_module<style>(norm, mesh);
}
