// ColwiseParallel on a norm.
// expect-error: shardwise::parallelize_module: \[Q4\] the style does not know this layer: ColwiseParallel and RowwiseParallel shard linear and embedding layers
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto style = ColwiseParallel{};
#else
constexpr auto style = SequenceParallel{};
#endif

auto parallelized(const nn::LayerNorm<Unsharded<float>>& norm, const Mesh& mesh) {
  return parallelize_module<style>(norm, mesh);
}
