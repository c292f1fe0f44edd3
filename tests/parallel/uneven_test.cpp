// Sizes that do not divide, where PyTorch fails: hidden sizes 13 and 3 on 4 ranks, a sequence of 11; trained beside one device. And
// sequence parallelism (TE-1, TE-2).
#include <shardwise/testing/doctest.hpp>

#include "parallel/support.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

// A residual stream along the sequence: what comes back is sharded as what went in.
template <class Scope = Unsharded<float>>
struct Block {
  Child<Scope, "first", nn::Linear> first;
  Child<Scope, "norm", nn::LayerNorm> norm;
  Child<Scope, "up", nn::Linear> up;
  Child<Scope, "down", nn::Linear> down;
  auto operator()(const auto& x) const {
    const auto h = first(x);
    const auto r = relu(h) + h * 0.5f;
    return r + down(relu(up(norm(r))));
  }
};

constexpr auto default_plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});
constexpr auto sequence_plan = parallelize_plan("net1"_path = ColwiseParallel{.input_layouts = Shard<0>{}},
                                                "net2"_path = RowwiseParallel{.output_layouts = Shard<0>{}});

}  // namespace

SHARDWISE_TEST_RANKS("TE-1 tensor-parallel training costs one all_reduce a pass", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = mlp(10, 16, 10);
  auto sharded = parallelize_module<default_plan>(dense, mesh);
  const auto x = rand<float>({8, 10});
  CommDebugMode comm;
  const auto y = sharded(x);
  backward(sum(y * y));
  optim::SGD(parameters(sharded), {.lr = 0}).step();
  check_counts(comm, {{Collective::all_reduce, 1}}, {});  // the input needs no gradient
  zero_grad(parameters(sharded));
  train_alike(dense, sharded, x, x);
}

SHARDWISE_TEST_RANKS("TE-2 along the sequence: gathered, scattered and back", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = mlp(10, 16, 10);
  auto sharded = parallelize_module<sequence_plan>(dense, mesh);
  manual_seed(1);
  const auto x = rand<float>({32, 10});
  const auto local = part<Shard<0>>(x, mesh);
  CommDebugMode comm;
  const auto y = sharded(local);
  CHECK(y.shape() == Shape<2>{8, 10});
  backward(sum(y * y));
  check_counts(comm, {{Collective::all_gather, 1}, {Collective::reduce_scatter, 1}}, {{Collective::all_gather, 1}});
  settle_gradients(parameters(sharded));
  const auto z = dense(x);
  backward(sum(z * z));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-4);
}

SHARDWISE_TEST_RANKS("a hidden size of 13, and one smaller than the axis", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  manual_seed(2);
  const auto x = rand<float>({6, 7});
  for (const std::int64_t hidden : {13, 3}) {
    auto dense = mlp(7, hidden, 5);
    auto sharded = parallelize_module<default_plan>(dense, mesh);
    CHECK(sharded.net1.weight.local_shape()[0] ==
          (hidden == 13 ? (world.rank() < 3 ? 4 : 1) : (world.rank() < 3 ? 1 : 0)));
    train_alike(dense, sharded, x, x);
  }
}

SHARDWISE_TEST_RANKS("rows that do not divide, distributed", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("net1"_path = ColwiseParallel{.input_layouts = Shard<0>{}},
                       "net2"_path = RowwiseParallel{.output_layouts = Shard<0>{}, .use_local_output = false});
  manual_seed(2);
  const auto x = rand<float>({5, 7});
  auto dense = mlp(7, 13, 5);
  auto sharded = parallelize_module<plan>(dense, mesh);
  train_alike(dense, sharded, x, distribute_tensor<Shard<0>>(x, mesh));
}

// first gives plain parts of 3, 3, 3 and 2 positions; the residual sum, the norm and the next layer take them back.
SHARDWISE_TEST_RANKS("a sequence of 11 through local activations", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan("first"_path = RowwiseParallel{.output_layouts = Shard<1>{}},
                                                "norm"_path = SequenceParallel{.use_local_output = true},
                                                "up"_path = ColwiseParallel{.input_layouts = Shard<1>{}},
                                                "down"_path = RowwiseParallel{.output_layouts = Shard<1>{}});
  manual_seed(7);
  Block<> dense{nn::linear(6, 10), nn::layer_norm(10), nn::linear(10, 13), nn::linear(13, 10)};
  auto sharded = parallelize_module<plan>(dense, mesh);
  const auto x = rand<float>({2, 11, 6});
  const auto y = dense(x);
  const auto z = sharded(part<Shard<2>>(x, mesh));
  static_assert(!std::remove_cvref_t<decltype(z)>::distributed);
  CHECK(z.shape() == Shape<3>{2, world.rank() < 3 ? 3 : 2, 10});
  CHECK(allclose(z, part<Shard<1>>(y, mesh), {.rtol = 1e-5, .atol = 1e-5}));
  backward(sum(y * y));
  backward(sum(z * z));
  settle_gradients(parameters(sharded));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 2e-5);
}

SHARDWISE_TEST_RANKS("a sequence of 11 through distributed activations, over several steps", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("first"_path = RowwiseParallel{.output_layouts = Shard<1>{}, .use_local_output = false},
                       "norm"_path = SequenceParallel{}, "up"_path = ColwiseParallel{.use_local_output = false},
                       "down"_path = RowwiseParallel{.output_layouts = Shard<1>{}, .use_local_output = false});
  manual_seed(7);
  Block<> dense{nn::linear(6, 10), nn::layer_norm(10), nn::linear(10, 13), nn::linear(13, 10)};
  auto sharded = parallelize_module<plan>(dense, mesh);
  const auto x = rand<float>({2, 11, 6});
  train_alike(dense, sharded, x, distribute_tensor<Shard<2>>(x, mesh), 3, 0.01);
}

SHARDWISE_TEST_RANKS("a plain part remembers the sizes that it came from, and no others", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto other = init_device_mesh<"tp">(world, {4});
  const auto x = rand<float, Shard<0>>(mesh, {5, 8});
  const auto local = x.to_local();
  const auto same = [&](const auto& y) { return from_local<Shard<0>>(y, mesh).shape() == Shape<2>{5, 8}; };
  CHECK(same(local));
  CHECK(same(relu(local)));
  CHECK(same(2.0f * local + 1.0f));
  CHECK(same(local * clone(local)));
  CHECK(same(ones<float>(local.shape()) + local));
  CHECK(same(dropout(local, 0.5)));
  CHECK(same(detach(local)));
  CHECK(from_local<Shard<1>>(local, mesh).shape()[1] == 32);  // another placement
  CHECK(from_local<Shard<0>>(local, other).shape()[0] == 4 * local.shape()[0]);  // another mesh
  CHECK(from_local<Shard<0>>(clone(x).to_local() + ones<float>({1, 8}), mesh).shape()[1] == 8);
  if (world.rank() < 2) CHECK(same(relu(local)));
  CHECK_THROWS_AS((from_local<Shard<0>>(local, mesh, {.global_shape = Shape<2>{20, 8}})), ShapeError);
}
