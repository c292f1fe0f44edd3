// [Q12]: two children with one name.
// expect-error: shardwise::parallelize_module: \[Q12\] two members of a module have one name; give each a name of its own
// needs: eigen
#include <optional>
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

using namespace shardwise;

#if SHARDWISE_EXPECT_FAIL
inline constexpr Name second = "net1";
#else
inline constexpr Name second = "net2";
#endif

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  std::optional<Child<Scope, second, nn::Linear>> net2;
  auto operator()(const auto& x) const { return (*net2)(relu(net1(x))); }
};
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{.output_layouts = Replicate{}});

auto f(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh)(ones<float>({2, 2})); }
