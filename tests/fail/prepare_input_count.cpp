// One layout for a module that takes two inputs.
// expect-error: shardwise::PrepareModuleInput: \[Y5\] one layout per positional input; write None\{\} for those that pass as they are
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto style = PrepareModuleInput{.input_layouts = Shard<0>{}, .desired_input_layouts = Replicate{}};
#else
constexpr auto style = PrepareModuleInput{.input_layouts = Layouts{Shard<0>{}, None{}},
                                          .desired_input_layouts = Layouts{Replicate{}, None{}}};
#endif

template <class Scope = Unsharded<float>>
struct Scaled {
  auto operator()(const auto& x, float factor) const { return x * factor; }
};
auto output(const Mesh& mesh) { return parallelize_module<style>(Scaled<>{}, mesh)(ones<float>({2, 2}), 2.0f); }
