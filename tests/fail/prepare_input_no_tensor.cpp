// A layout for an input that is no tensor.
// expect-error: shardwise::PrepareModuleInput: \[Y1\] a layout stands for a value that is no tensor; write None\{\} for it
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto style = PrepareModuleInput{.input_layouts = Layouts{Shard<0>{}, Shard<0>{}},
                                          .desired_input_layouts = Layouts{Replicate{}, Replicate{}}};
#else
constexpr auto style = PrepareModuleInput{.input_layouts = Layouts{Shard<0>{}, None{}},
                                          .desired_input_layouts = Layouts{Replicate{}, None{}}};
#endif

template <class Scope = Unsharded<float>>
struct Scaled {
  auto operator()(const auto& x, float factor) const { return x * factor; }
};
auto output(const Mesh& mesh) { return parallelize_module<style>(Scaled<>{}, mesh)(ones<float>({2, 2}), 2.0f); }
