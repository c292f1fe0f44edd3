// What a user of the whole library writes: a model of two layers, on one device and on two ranks.
#include <shardwise/shardwise.hpp>

#include <cstdio>

using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
  auto operator()(const auto& x) const { return net2(relu(net1(x))); }
};

constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});

int main() {
  bool good = true;
  const Mlp<> model{nn::linear(10, 16), nn::linear(16, 10)};
  run_ranks(2, [&](ThreadCommunicator world) {
    auto mesh = init_device_mesh<"tp">(world, {2});
    const auto sharded = parallelize_module<plan>(model, mesh);
    const auto x = rand<float>({12, 10});
    const bool same = allclose(sharded(x), model(x), {.rtol = 1e-4, .atol = 1e-5});
    if (world.rank() == 0) good = same;
  });
  std::puts(good ? "eigen program: good" : "eigen program: bad");
  return good ? 0 : 1;
}
