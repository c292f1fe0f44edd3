// optim::SGD against a loop over one array, and what an optimizer step does with pending gradients.
#include <shardwise/testing/doctest.hpp>

#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include <shardwise/shardwise.hpp>

using namespace shardwise;

namespace {

template <class Scope = Unsharded<double>>
struct Point {
  Param<Scope, "p", 1> p;
  Param<Scope, "q", 1> q;
};

Point<> point() { return {arange<double>(5) - 2.0, ones<double>({3})}; }

// The gradient in step t at p: of p^2 (t + 1) / 2.
std::vector<double> by_loop(const optim::SGDOptions& o, int steps) {
  std::vector<double> p{-2, -1, 0, 1, 2};
  std::vector<double> buffer(5, 0);
  for (int t = 0; t < steps; ++t)
    for (std::size_t i = 0; i < 5; ++i) {
      double g = p[i] * (t + 1);
      if (o.maximize) g = -g;
      g += o.weight_decay * p[i];
      if (o.momentum != 0) {
        buffer[i] = t == 0 ? g : o.momentum * buffer[i] + (1 - o.dampening) * g;
        g = o.nesterov ? g + o.momentum * buffer[i] : buffer[i];
      }
      p[i] -= o.lr * g;
    }
  return p;
}

std::vector<double> by_library(const optim::SGDOptions& o, int steps) {
  const auto model = point();
  optim::SGD sgd(parameters(model), o);
  for (int t = 0; t < steps; ++t) {
    sgd.zero_grad();
    backward(sum(model.p.tensor() * model.p.tensor()) * (0.5 * (t + 1)));
    sgd.step();
  }
  CHECK(equal(model.q.tensor(), ones<double>({3})));  // no gradient: left alone
  return std::vector<double>(model.p.data(), model.p.data() + 5);
}

std::string message(const optim::SGDOptions& options) {
  try {
    optim::SGD sgd({}, options);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

template <class Scope = Unsharded<float>>
struct Norms {
  Child<Scope, "a", nn::LayerNorm> a;
  Child<Scope, "b", nn::LayerNorm> b;
  auto operator()(const auto& x) const { return b(a(x)); }
};

}  // namespace

TEST_CASE("SGD in all its variants is the loop that it stands for") {
  for (const double momentum : {0.0, 0.9})
    for (const double dampening : {0.0, 0.25})
      for (const double decay : {0.0, 0.1})
        for (const bool nesterov : {false, true})
          for (const bool maximize : {false, true}) {
            if (nesterov && (momentum == 0 || dampening != 0)) continue;
            const optim::SGDOptions o{.lr = 0.05,
                                      .momentum = momentum,
                                      .dampening = dampening,
                                      .weight_decay = decay,
                                      .nesterov = nesterov,
                                      .maximize = maximize};
            INFO("momentum ", momentum, " dampening ", dampening, " decay ", decay, " nesterov ", nesterov,
                 " maximize ", maximize);
            const auto expected = by_loop(o, 4);
            const auto found = by_library(o, 4);
            for (std::size_t i = 0; i < 5; ++i)
              CHECK(std::abs(found[i] - expected[i]) <= 1e-13 * std::max(1.0, std::abs(expected[i])));
          }
}

// Numbers that 16 bits hold: what is rounded is not the question, but that the momentum is kept, past a block of 256 too.
TEST_CASE_TEMPLATE("the momentum of 16-bit parameters goes on from step to step", T, bfloat16, half) {
  Tensor<T, 1> p({300});
  for (std::int64_t i = 0; i < 300; ++i) p.data()[i] = static_cast<T>(static_cast<float>(4 + i % 4));
  p.requires_grad(true);
  optim::SGD sgd({{"p", dtype_of<T>, p.impl()}}, {.lr = 0.5, .momentum = 0.5});
  float moved = 0;
  for (const float step : {0.5f, 0.75f, 0.875f}) {
    sgd.zero_grad();
    backward(p, ones<T>({300}));
    sgd.step();
    moved += step;
    int wrong = 0;
    for (std::int64_t i = 0; i < 300; ++i)
      wrong += static_cast<float>(p.data()[i]) != static_cast<float>(4 + i % 4) - moved;
    CHECK(wrong == 0);
  }
}

TEST_CASE_TEMPLATE("a complex parameter is trained as the pairs of reals that it is", T, float, double) {
  using C = std::complex<T>;
  const Point<Unsharded<C>> model{full<C>({3}, C(1, -2)), zeros<C>({1})};
  optim::SGD sgd(parameters(model), {.lr = 0.5, .momentum = 0.5, .weight_decay = 0.25});
  double p[] = {1, -2};
  double buffer[] = {0, 0};
  const double g[] = {0.5, 4};
  for (int step = 0; step < 3; ++step) {
    sgd.zero_grad();
    backward(model.p.tensor(), full<C>({3}, C(static_cast<T>(g[0]), static_cast<T>(g[1]))));
    sgd.step();
    for (int i = 0; i < 2; ++i) {
      const double gradient = g[i] + 0.25 * p[i];
      buffer[i] = step == 0 ? gradient : 0.5 * buffer[i] + gradient;
      p[i] -= 0.5 * buffer[i];
    }
    for (int i = 0; i < 3; ++i) {
      CHECK(static_cast<double>(model.p.data()[i].real()) == doctest::Approx(p[0]));
      CHECK(static_cast<double>(model.p.data()[i].imag()) == doctest::Approx(p[1]));
    }
  }
}

TEST_CASE("a step that no parameter has a gradient for warns, and one that some have does not") {
  std::vector<std::string> warnings;
  ScopedWarningHandler handler([&](std::string_view text) { warnings.emplace_back(text); });
  const auto model = point();
  optim::SGD sgd(parameters(model), {.lr = 0.1});
  sgd.step();
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("optim::SGD: no parameter has a gradient") != std::string::npos);
  backward(sum(model.p.tensor()));
  sgd.step();
  optim::SGD({}, {.lr = 0.1}).step();
  CHECK(warnings.size() == 1);
}

TEST_CASE("options that make no sense are refused") {
  CHECK(message({}) == "");
  CHECK(message({.lr = -0.1}).find("learning rate") != std::string::npos);
  CHECK(message({.momentum = -1}).find("momentum") != std::string::npos);
  CHECK(message({.weight_decay = -1}).find("weight decay") != std::string::npos);
  CHECK(message({.nesterov = true}).find("Nesterov") != std::string::npos);
  CHECK(message({.momentum = 0.9, .dampening = 0.1, .nesterov = true}).find("Nesterov") != std::string::npos);
  CHECK(message({.lr = std::nan("")}) != "");
  CHECK(message({.momentum = std::nan("")}) != "");
}

TEST_CASE("gradients add up until they are zeroed, and the rate may change between steps") {
  const auto model = point();
  optim::SGD sgd(parameters(model), {.lr = 0.5});
  for (int pass = 0; pass < 3; ++pass) backward(sum(model.p.tensor()));
  CHECK(equal(model.p.grad(), full<double>({5}, 3)));
  sgd.step();
  CHECK(model.p.data()[0] == -3.5);
  sgd.step();  // the gradient is still there
  CHECK(model.p.data()[0] == -5);
  sgd.zero_grad();
  CHECK(!model.p.has_grad());
  CHECK_THROWS_AS(model.p.grad(), Error);
  sgd.step();
  CHECK(model.p.data()[0] == -5);
  sgd.options().lr = 1;
  backward(sum(model.p.tensor()));
  sgd.step();
  CHECK(model.p.data()[0] == -6);
  zero_grad(parameters(model));
  CHECK(!model.p.has_grad());
}

SHARDWISE_TEST_RANKS("pending gradients of all parameters cost one all_reduce a step", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan("a"_path = SequenceParallel{}, "b"_path = SequenceParallel{});
  const Norms<> dense{nn::layer_norm(6), nn::layer_norm(6)};
  const auto sharded = parallelize_module<plan>(dense, mesh);
  manual_seed(1);
  const auto x = rand<float>({2, 10, 6});
  optim::SGD of_dense(parameters(dense), {.lr = 0.1, .momentum = 0.9});
  optim::SGD of_sharded(parameters(sharded), {.lr = 0.1, .momentum = 0.9});
  for (int step = 0; step < 3; ++step) {
    const auto y = dense(x);
    backward(sum(y * y * y));
    CommDebugMode comm;
    const auto z = sharded(distribute_tensor<Shard<1>>(x, mesh, {.src_data_rank = no_source}));
    backward(sum(z * z * z));
    CHECK(comm.total_count() == 0);
    CHECK_THROWS_WITH_AS(sharded.a.weight.grad(), doctest::Contains("settle_gradients"), Error);
    CHECK(sharded.a.weight.has_grad());
    of_dense.step();
    of_sharded.step();
    CHECK(comm.total_count() == 1);
    CHECK(comm.count(Collective::all_reduce, "tp") == 1);
    settle_gradients(parameters(sharded));  // nothing is pending any more
    CHECK(comm.total_count() == 1);
    CHECK(allclose(sharded.a.weight.grad().full_tensor(), dense.a.weight.grad(), {.rtol = 1e-3, .atol = 1e-3}));
    CHECK(allclose(sharded.b.bias.full_tensor(), dense.b.bias.tensor(), {.rtol = 1e-4, .atol = 1e-4}));
    of_dense.zero_grad();
    of_sharded.zero_grad();
  }
}

SHARDWISE_TEST_RANKS("pending on two axes: one all_reduce for each, whatever the number of parameters", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  auto a = distribute_tensor<Replicate, Replicate>(ones<double>({4}), mesh);
  auto b = distribute_tensor<Replicate, Replicate>(ones<double>({3}), mesh);
  auto c = distribute_tensor<Replicate, Replicate>(ones<float>({3}), mesh);
  a.requires_grad(true);
  b.requires_grad(true);
  c.requires_grad(true);
  const ParameterList list = parameters(a, b, c, a);
  CHECK(list.size() == 3);
  CHECK(list[2].name == "2");
  CHECK(list[2].dtype == DType::float32);
  const auto on_both = [&](const auto& x) { return to_local<Partial<>, Partial<>>(x); };
  backward(sum(on_both(a)));
  backward(sum(on_both(b)));
  CommDebugMode comm;
  settle_gradients(list);
  CHECK(comm.total_count() == 2);
  CHECK(comm.count(Collective::all_reduce, "dp") == 1);
  CHECK(comm.count(Collective::all_reduce, "tp") == 1);
  CHECK(equal(a.grad().full_tensor(), full<double>({4}, 4)));
  CHECK(equal(b.grad().full_tensor(), full<double>({3}, 4)));
  backward(sum(to_local<Replicate, Partial<>>(c)));
  comm.reset();
  settle_gradients(list);
  CHECK(comm.total_count() == 1);
  CHECK(comm.count(Collective::all_reduce, "tp") == 1);
  CHECK(equal(c.grad().full_tensor(), full<float>({3}, 2)));
}

SHARDWISE_TEST_RANKS("tensors without a module, sharded over two axes, train as on one device", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  manual_seed(11);
  const Tensor<double, 2> x = rand<double>({7, 5});
  Point<> model{rand<double>({4}), rand<double>({1})};  // with a module among them
  Tensor<double, 2> up = rand<double>({9, 5}), down = rand<double>({4, 9});
  auto sharded_x = distribute_tensor<Shard<0>, Replicate>(x, mesh);
  auto sharded_up = distribute_tensor<Replicate, Shard<0>>(up, mesh);
  auto sharded_down = distribute_tensor<Replicate, Shard<1>>(down, mesh);
  auto sharded_bias = distribute_tensor<Replicate, Replicate>(model.p.tensor(), mesh);
  up.requires_grad(true);
  down.requires_grad(true);
  sharded_up.requires_grad(true);
  sharded_down.requires_grad(true);
  sharded_bias.requires_grad(true);
  optim::SGD one(parameters(model, up, down), {.lr = 0.05, .momentum = 0.9});
  optim::SGD four(parameters(sharded_up, sharded_down, sharded_bias), {.lr = 0.05, .momentum = 0.9});
  CHECK(one.parameters()[0].name == "p");
  CHECK(one.parameters()[3].name == "2");
  for (int step = 0; step < 3; ++step) {
    one.zero_grad();
    four.zero_grad();
    const auto y = linear(tanh(linear(x, up)), down) + model.p.tensor();
    const auto sharded_y =
        redistribute<On<"tp", Replicate>>(linear(tanh(linear(sharded_x, sharded_up)), sharded_down)) + sharded_bias;
    backward(mean(y * y));
    backward(mean(sharded_y * sharded_y));
    one.step();
    four.step();
  }
  CHECK(allclose(sharded_up.full_tensor(), up, {.rtol = 1e-9, .atol = 1e-9}));
  CHECK(allclose(sharded_down.full_tensor(), down, {.rtol = 1e-9, .atol = 1e-9}));
  CHECK(allclose(sharded_bias.full_tensor(), model.p.tensor(), {.rtol = 1e-9, .atol = 1e-9}));
}
