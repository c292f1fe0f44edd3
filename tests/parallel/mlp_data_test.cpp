// The MLP of PyTorch's tests against the values that PyTorch computed: output, gradients, SGD, momentum; on one device and tensor
// parallel, through local activations and through distributed ones; float and double.
#include <shardwise/testing/doctest.hpp>

#include "parallel/support.hpp"
#include "support/json.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

const Json& data() {
  static const Json json = Json::load("mlp.json");
  return json;
}

template <class T, std::size_t R>
Tensor<T, R> tensor(const Json& j) {
  const auto sizes = j["shape"].numbers<std::int64_t>();
  const auto values = j["data"].numbers<T>();
  Shape<R> shape{};
  std::copy(sizes.begin(), sizes.end(), shape.begin());
  Tensor<T, R> x(shape);
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

template <class T>
Mlp<Unsharded<T>> model(const Json& j) {
  const auto layer = [&](const std::string& name) {
    nn::Linear<Unsharded<T>> l;
    l.weight = tensor<T, 2>(j["params"][name + ".weight"]);
    l.bias = tensor<T, 1>(j["params"][name + ".bias"]);
    return l;
  };
  return {layer("net1"), layer("net2")};
}

Values named(const Json& j) {
  Values all;
  for (const auto& name : j.keys()) all[name] = j[name]["data"].numbers<double>();
  return all;
}

template <class T>
constexpr double tolerance = sizeof(T) == 8 ? 1e-12 : 2e-6;

Values in_units_of_the_largest(Values all) {
  double largest = 0;
  for (const auto& entry : all)
    for (const double v : entry.second) largest = std::max(largest, std::abs(v));
  for (auto& entry : all)
    for (double& v : entry.second) v /= largest;
  return all;
}

// `make` gives a fresh model.
template <class T, class Make>
void check(const Json& j, Make make) {
  auto m = make();
  auto x = tensor<T, 2>(j["input"]);
  x.requires_grad(true);
  const auto y = m(x);
  const auto loss = sum(y);
  check_close(j["output"]["data"].numbers<double>(), values_of(y), tolerance<T>, "output");
  check_close(j["loss"]["data"].numbers<double>(), values_of(loss), tolerance<T>, "loss");
  backward(loss);
  check_close(j["grad_input"]["data"].numbers<double>(), values_of(x.grad()), tolerance<T>, "gradient of the input");
  check_close(named(j["grads"]), whole(m, Take::gradient), tolerance<T>);
  optim::SGD(parameters(m), {.lr = 0.25}).step();
  check_close(named(j["after_sgd1"]), whole(m), tolerance<T>);
  check_close(j["output_after_sgd1"]["data"].numbers<double>(), values_of(m(x)), tolerance<T>, "output after a step");
  // From there three steps with momentum, on weights that grow to 2e4: errors count against the largest of them.
  optim::SGD sgd(parameters(m), {.lr = 0.25, .momentum = 0.9});
  for (int step = 0; step < 3; ++step) {
    sgd.zero_grad();
    backward(sum(m(x)));
    sgd.step();
  }
  check_close(in_units_of_the_largest(named(j["after_momentum3"])), in_units_of_the_largest(whole(m)), tolerance<T>);
}

template <class T>
void check_both(testing::World& world, const Json& j) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto local = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});
  static constexpr auto distributed = parallelize_plan("net1"_path = ColwiseParallel{.use_local_output = false},
                                                       "net2"_path = RowwiseParallel{.use_local_output = false});
  check<T>(j, [&] { return parallelize_module<local>(model<T>(j), mesh); });
  check<T>(j, [&] { return parallelize_module<distributed>(model<T>(j), mesh); });
}

}  // namespace

TEST_CASE("the MLP on one device has PyTorch's values") {
  check<float>(data()["float32"], [] { return model<float>(data()["float32"]); });
  check<double>(data()["float64"], [] { return model<double>(data()["float64"]); });
}

SHARDWISE_TEST_RANKS("the tensor-parallel MLP has PyTorch's values in float", 4) {
  check_both<float>(world, data()["float32"]);
}
SHARDWISE_TEST_RANKS("the tensor-parallel MLP has PyTorch's values in double", 4) {
  check_both<double>(world, data()["float64"]);
}
