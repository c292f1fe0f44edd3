// Tensor parallelism on devices: a model that is made on the host is parallelised over simulated GPUs and trains to the values that it
// trains to on threads, within the rounding of the device's functions.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <shardwise/backends/thread.hpp>
#include <shardwise/device/redistribute.hpp>
#include <shardwise/shardwise.hpp>

#include "simulated_cuda/ranks.hpp"

namespace {

using namespace shardwise;
using namespace test;

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
  Child<Scope, "head", nn::Linear> head;
  auto operator()(const auto& x) const { return head(net2(gelu(net1(x)))); }
};

// Column-wise, row-wise, and a layer that every rank holds whole.
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});

Mlp<> made() {
  manual_seed(5);
  return {nn::linear(6, 12), nn::linear(12, 8), nn::linear(8, 4)};
}
Tensor<float, 2> input(int step) {
  Tensor<float, 2> x({8, 6});
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>((i * 13 + step * 7) % 31 - 15) / 16;
  return x;
}
Tensor<std::int64_t, 1> classes(int step) {
  Tensor<std::int64_t, 1> target({8});
  for (std::int64_t i = 0; i < 8; ++i) target.data()[i] = (i * 3 + step) % 4;
  return target;
}

template <class Comm, class X>
auto there(const X& x) {
  if constexpr (Comm::memory_space == MemorySpace::cuda)
    return to_device(x);
  else
    return x;
}

// The losses of some steps, and all parameters after them.
template <class Comm>
std::vector<float> trained(const Comm& world) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto model = parallelize_module<plan>(made(), mesh);
  optim::SGD optimizer(parameters(model), {.lr = 0.25, .momentum = 0.5});
  std::vector<float> seen;
  for (int step = 0; step < 5; ++step) {
    const auto loss = cross_entropy(model(there<Comm>(input(step))), there<Comm>(classes(step)));
    seen.push_back(on_host(loss).item());
    optimizer.zero_grad();
    backward(loss);
    optimizer.step();
  }
  for_each_parameter(model, [&](const auto&, const auto& p) {
    const auto whole = on_host(p.full_tensor());
    seen.insert(seen.end(), whole.data(), whole.data() + whole.size());
  });
  return seen;
}

TEST_CASE("a tensor-parallel MLP on 4 devices trains to the values of the host") {
  std::vector<std::vector<float>> host(4), device(4);
  run_ranks(4, [&](ThreadCommunicator world) { host[static_cast<std::size_t>(world.rank())] = trained(world); });
  check_none(on_ranks(
      4, [&](const NcclCommunicator& world) { device[static_cast<std::size_t>(world.rank())] = trained(world); }));
  for (std::size_t r = 0; r < 4; ++r) {
    REQUIRE(host[r].size() == device[r].size());
    CHECK(host[r].size() > 200);
    CHECK(host[r][4] < host[r][0]);  // it learns
    for (std::size_t i = 0; i < host[r].size(); ++i) {
      INFO("rank ", r, ", value ", i);
      CHECK(std::abs(host[r][i] - device[r][i]) < 2e-5f);
    }
  }
}

}  // namespace
