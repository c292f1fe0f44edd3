// The Prepare... styles and SequenceParallel, TS-8 to TS-15 of PyTorch's test_tp_style.py. Keyword arguments are positions here.
#include <shardwise/testing/doctest.hpp>

#include <type_traits>

#include "parallel/support.hpp"

using namespace shardwise;
using namespace test;

namespace {

constexpr auto all_gather = Collective::all_gather;
constexpr auto all_to_all = Collective::all_to_all;

template <class Scope = Unsharded<float>>
struct Identity {
  auto operator()(const auto& x) const { return x; }
};

template <class Scope = Unsharded<float>>
struct LinearPlus {
  Child<Scope, "linear", nn::Linear> linear;
  auto operator()(const auto& x, const auto& y) const { return linear(x) + y; }
};

template <class Scope = Unsharded<float>>
struct Add {
  auto operator()(const auto& x, const auto& y) const { return x + y; }
};

template <class Scope = Unsharded<float>>
struct Pair {
  auto operator()(const auto& x, const auto& factor) const { return std::tuple(x, x * factor); }
};

using Mesh4 = decltype(init_device_mesh<"tp">(std::declval<testing::World>(), {4}));

}  // namespace

SHARDWISE_TEST_RANKS("TS-8 the input is prepared", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto module =
      parallelize_module<PrepareModuleInput{.input_layouts = Shard<0>{}, .desired_input_layouts = Replicate{}}>(
          Identity<>{}, mesh);
  CommDebugMode comm;
  const auto y = module(ones<float>({2, 16}));
  check_counts(comm, {{all_gather, 1}}, {});
  static_assert(std::remove_cvref_t<decltype(y)>::distributed);
  CHECK(equal(y.to_local(), ones<float>({8, 16})));
}

SHARDWISE_TEST_RANKS("TS-9 the output is prepared", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto module =
      parallelize_module<PrepareModuleOutput{.output_layouts = Replicate{}, .desired_output_layouts = Shard<0>{}}>(
          Identity<>{}, mesh);
  CommDebugMode comm;
  CHECK(equal(module(ones<float>({8, 16})), ones<float>({2, 16})));
  check_counts(comm, {}, {});
}

SHARDWISE_TEST_RANKS("TS-10 two inputs, one of which passes as it is", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan(""_path = PrepareModuleInput{.input_layouts = Layouts{Shard<0>{}, None{}},
                                                    .desired_input_layouts = Layouts{Replicate{}, None{}}},
                       "linear"_path = ColwiseParallel{});
  LinearPlus<> dense{nn::linear(8, 8)};
  const auto module = parallelize_module<plan>(dense, mesh);
  CommDebugMode comm;
  const auto y = module(ones<float>({2, 8}), ones<float>({8, 2}));
  check_counts(comm, {{all_gather, 1}}, {});
  CHECK(y.shape() == Shape<2>{8, 2});
  CHECK(
      allclose(y, part<Shard<1>>(dense(ones<float>({8, 8}), ones<float>({8, 8})), mesh), {.rtol = 1e-6, .atol = 1e-6}));
}

SHARDWISE_TEST_RANKS("TS-11 the second input, both, and one that is distributed already", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto second = parallelize_module<PrepareModuleInput{.input_layouts = Layouts{None{}, Shard<0>{}},
                                                            .desired_input_layouts = Layouts{None{}, Replicate{}},
                                                            .use_local_output = true}>(Add<>{}, mesh);
  const auto both =
      parallelize_module<PrepareModuleInput{.input_layouts = Layouts{Shard<0>{}, Shard<0>{}},
                                            .desired_input_layouts = Layouts{Replicate{}, Replicate{}}}>(Add<>{}, mesh);
  const auto one = ones<float>({1, 8});
  CommDebugMode comm;
  CHECK(equal(second(ones<float>({4, 8}), one), full<float>({4, 8}, 2)));
  check_counts(comm, {{all_gather, 1}}, {});
  comm.reset();
  const auto y = both(one, one);
  check_counts(comm, {{all_gather, 2}}, {});
  CHECK(y.shape() == Shape<2>{4, 8});
  comm.reset();
  CHECK(equal(both(from_local<Shard<0>>(one, mesh), one).to_local(), y.to_local()));
  check_counts(comm, {{all_gather, 2}}, {});
}

SHARDWISE_TEST_RANKS("outputs in a tuple have a layout each", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto module =
      parallelize_module<PrepareModuleInputOutput{.input_layouts = Layouts{Replicate{}, None{}},
                                                  .desired_input_layouts = Layouts{Replicate{}, None{}},
                                                  .output_layouts = Layouts{Replicate{}, Replicate{}},
                                                  .desired_output_layouts = Layouts{Shard<0>{}, Shard<1>{}}}>(Pair<>{},
                                                                                                              mesh);
  const auto [a, b] = module(ones<float>({4, 8}), 3.0f);
  CHECK(equal(a, ones<float>({1, 8})));
  CHECK(equal(b, full<float>({4, 2}, 3)));
}

SHARDWISE_TEST_RANKS("TS-12 a layer norm along the sequence communicates nothing and its gradients pend", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  manual_seed(1);
  auto x = rand<float>({20, 32, 12});
  for (const bool affine : {true, false}) {
    auto dense = nn::layer_norm(12, {.elementwise_affine = affine});
    const auto sharded = parallelize_module<SequenceParallel{}>(dense, mesh);
    const auto y = dense(x);
    auto local = distribute_tensor<Shard<1>>(x, mesh, {.src_data_rank = no_source});
    local.requires_grad(true);
    CommDebugMode comm;
    const auto z = sharded(local);
    static_assert(std::is_same_v<std::remove_cvref_t<decltype(z)>, DTensor<float, 3, Mesh4, Shard<1>>>);
    backward(sum(z * z));
    check_counts(comm, {}, {});
    CHECK(allclose(z.to_local(), part<Shard<1>>(y, mesh), {.rtol = 1e-5, .atol = 1e-5}));
    CHECK(sharded.weight.defined() == affine);
    if (affine) {
      backward(sum(y * y));
      CHECK_THROWS_AS(sharded.weight.grad(), Error);
      settle_gradients(parameters(sharded));
      check_counts(comm, {{Collective::all_reduce, 1}}, {});  // weight and bias in one
      check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 2e-4);
    }
  }
}

SHARDWISE_TEST_RANKS("TS-13 an RMS norm along the sequence, from a plain part", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  manual_seed(1);
  auto x = rand<float>({20, 32, 12});
  auto dense = nn::rms_norm(12);
  const auto sharded = parallelize_module<SequenceParallel{}>(dense, mesh);
  const auto y = dense(x);
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(part<Shard<1>>(x, mesh));
  backward(sum(z * z));
  check_counts(comm, {}, {});
  CHECK(allclose(z.to_local(), part<Shard<1>>(y, mesh), {.rtol = 1e-5, .atol = 1e-5}));
  CHECK_THROWS_AS(sharded.weight.grad(), Error);
  settle_gradients(parameters(sharded));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 2e-4);
}

SHARDWISE_TEST_RANKS("TS-14 dropout along the sequence has the mask of one device", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto dense = nn::dropout(0.3);
  const auto sharded = parallelize_module<SequenceParallel{}>(dense, mesh);
  auto x = full<float>({20, 32, 12}, 2);
  auto local = distribute_tensor<Shard<1>>(x, mesh, {.src_data_rank = no_source});
  x.requires_grad(true);
  local.requires_grad(true);
  manual_seed(9);
  const auto y = dense(x);
  manual_seed(9);
  CommDebugMode comm;
  const auto z = sharded(local);
  backward(sum(z));
  check_counts(comm, {}, {});
  backward(sum(y));
  CHECK(equal(z.to_local(), part<Shard<1>>(y, mesh)));
  CHECK(equal(local.grad().to_local(), part<Shard<1>>(x.grad(), mesh)));
}

SHARDWISE_TEST_RANKS("TS-15 an input along another dimension is exchanged, once each way", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  manual_seed(1);
  auto x = rand<float>({20, 32, 12});
  auto dense = nn::rms_norm(12);
  const auto sharded = parallelize_module<SequenceParallel{}>(dense, mesh);
  auto local = distribute_tensor<Shard<0>>(x, mesh, {.src_data_rank = no_source});
  x.requires_grad(true);
  local.requires_grad(true);
  const auto y = dense(x);
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(local);
  static_assert(std::is_same_v<std::remove_cvref_t<decltype(z)>, DTensor<float, 3, Mesh4, Shard<1>>>);
  backward(sum(z * z));
  check_counts(comm, {{all_to_all, 1}}, {{all_to_all, 1}});
  CHECK(allclose(z.to_local(), part<Shard<1>>(y, mesh), {.rtol = 1e-5, .atol = 1e-5}));
  CHECK(allclose(local.grad().to_local(), part<Shard<0>>(x.grad(), mesh), {.rtol = 1e-4, .atol = 1e-5}));
  CHECK_THROWS_AS(sharded.weight.grad(), Error);
}
