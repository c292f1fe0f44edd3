// A model on a device: the same training as on the host.
#include <cstdint>
#include <optional>

#include <shardwise/device/module.hpp>
#include <shardwise/shardwise.hpp>

#include "cuda/operators.hpp"

namespace {

using namespace test;
namespace nn = shardwise::nn;
namespace optim = shardwise::optim;
using shardwise::Child;
using shardwise::Unsharded;

template <class Scope = Unsharded<float>>
struct Model {
  Child<Scope, "table", nn::Embedding> table;
  Child<Scope, "norm", nn::LayerNorm> norm;
  Child<Scope, "net", nn::Linear> net;
  std::optional<Child<Scope, "head", nn::Linear>> head;
  std::optional<Child<Scope, "none", nn::Linear>> none{};
  auto operator()(const auto& index) const { return (*head)(relu(net(norm(table(index))))); }
};

Model<> made() {
  shardwise::manual_seed(3);
  return {nn::embedding(11, 6), nn::layer_norm(6), nn::linear(6, 8), nn::linear(8, 5, {.bias = false})};
}

// The losses of some steps of descent, and the parameters behind them.
template <class M, class I, class Y>
std::vector<float> trained(M model, const I& index, const Y& target, const optim::SGDOptions& options) {
  optim::SGD sgd(parameters(model), options);
  std::vector<float> seen;
  for (int step = 0; step < 4; ++step) {
    sgd.zero_grad();
    const auto loss = cross_entropy(model(index), target);
    backward(loss);
    sgd.step();
    seen.push_back(home(loss).item());
  }
  for_each_parameter(model, [&](std::string_view, const auto& p) {
    for (const float v : values(home(p))) seen.push_back(v);
  });
  return seen;
}

SHARDWISE_DEVICE_TEST("a model on a device learns what it learns on the host") {
  Tensor<std::int64_t, 1> index({9}), target({9});
  for (std::int64_t i = 0; i < 9; ++i) {
    index.data()[i] = (3 * i) % 11;
    target.data()[i] = (i * i) % 5;
  }
  const optim::SGDOptions each[] = {{.lr = 0.3},
                                    {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01},
                                    {.lr = 0.1, .momentum = 0.5, .nesterov = true},
                                    {.lr = 0.1, .momentum = 0.5, .dampening = 0.5, .maximize = true}};
  for (const auto& options : each) {
    const auto want = trained(made(), index, target, options);
    const auto got = trained(to_device(made()), to_device(index), to_device(target), options);
    CHECK(near(got, want, 2000));
  }
}

SHARDWISE_DEVICE_TEST("a model goes to a device and comes back as it was, what is frozen too") {
  Model<> model = made();
  model.net.bias.requires_grad(false);
  const auto there = to_device(model);
  const Model<> back = to_host(there);
  CHECK(!there.net.bias.requires_grad());
  CHECK(there.net.weight.requires_grad());
  REQUIRE(there.head.has_value());
  CHECK(!there.head->bias.defined());
  CHECK(!there.none.has_value());
  CHECK(equal(back.net.weight.tensor(), model.net.weight.tensor()));
  CHECK(equal(back.table.weight.tensor(), model.table.weight.tensor()));
  CHECK(back.net.weight.data() != model.net.weight.data());
}

template <class Scope = Unsharded<float>>
struct Tied {
  Child<Scope, "one", nn::Linear> one;
  Child<Scope, "two", nn::Linear> two;
  auto operator()(const auto& x) const { return two(one(x)); }
};

SHARDWISE_DEVICE_TEST("parameters that are tied stay tied on a device") {
  Tied<> model{nn::linear(3, 3), nn::linear(3, 3)};
  model.two.weight = model.one.weight;
  const auto there = to_device(model);
  CHECK(there.one.weight.device_data() == there.two.weight.device_data());
  CHECK(there.one.bias.device_data() != there.two.bias.device_data());
  CHECK(parameters(there).size() == 3);
}

template <class T>
void step_of_16_bits() {
  const auto start = random_tensor<T>(1, {300}), slope = random_tensor<T>(2, {300});
  const auto stepped = [&](auto x, const auto& w) {
    x.requires_grad(true);
    optim::SGD sgd({{"x", shardwise::dtype_of<T>, x.impl()}}, {.lr = 0.1, .momentum = 0.9});
    for (int step = 0; step < 3; ++step) {
      sgd.zero_grad();
      backward(sum(x * w));
      sgd.step();
    }
    return values(home(x));
  };
  CHECK(near(stepped(to_device(start), to_device(slope)), stepped(clone(start), slope), 0));
}

SHARDWISE_DEVICE_TEST("steps of 16-bit and of complex parameters are the host's") {
  step_of_16_bits<shardwise::bfloat16>();
  step_of_16_bits<shardwise::half>();
  step_of_16_bits<std::complex<float>>();
}

}  // namespace
