// parallelize_module on one model: whose weights count, moving, tied, frozen and unmatched parameters, a layer without bias, contexts.
#include <shardwise/testing/doctest.hpp>

#include <memory>

#include "parallel/support.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <class Scope = Unsharded<float>>
struct Tied {
  Child<Scope, "embedding", nn::Embedding> embedding;
  Child<Scope, "output", nn::Linear> output;
  auto operator()(const auto& index) const { return output(embedding(index)); }
};

Mlp<> mlp(std::uint64_t seed = 5) { return test::mlp(10, 16, 10, seed); }
Tied<> tied() {
  manual_seed(6);
  Tied<> model{nn::embedding(16, 8), nn::linear(8, 16)};
  model.output.weight = model.embedding.weight.tensor();
  return model;
}

constexpr auto pair = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});
constexpr auto first_only = parallelize_plan("net1"_path = ColwiseParallel{.output_layouts = Replicate{}});

}  // namespace

SHARDWISE_TEST_RANKS("the weights of src_data_rank count, matched or not", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto mine = static_cast<std::uint64_t>(world.rank());
  for (const int source : {0, 1, 3}) {
    const auto from = mlp(static_cast<std::uint64_t>(source));
    check_close(whole(from), whole(parallelize_module<pair>(mlp(mine), mesh, {.src_data_rank = source})), 0);
    const auto half = parallelize_module<first_only>(mlp(mine), mesh, {.src_data_rank = source});
    static_assert(!decltype(half.net2.weight)::TensorType::distributed);
    check_close(whole(from), whole(half), 0);
  }
  CommDebugMode comm;
  const auto own = parallelize_module<first_only>(mlp(mine), mesh, {.src_data_rank = no_source});
  CHECK(comm.total_count() == 0);
  CHECK(equal(own.net2.weight.tensor(), mlp(mine).net2.weight.tensor()));
  CHECK(equal(own.net1.weight.to_local(), part<Shard<0>>(mlp(mine).net1.weight.tensor(), mesh)));
  CHECK_THROWS_AS(parallelize_module<pair>(mlp(), mesh, {.src_data_rank = 4}), Error);
  CHECK_THROWS_AS(parallelize_module<pair>(mlp(), mesh, {.src_data_rank = -2}), Error);
}

SHARDWISE_TEST_RANKS("a copy shares nothing, a move gives the memory back", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = mlp();
  auto half = parallelize_module<first_only>(dense, mesh, {.src_data_rank = no_source});
  CHECK(half.net2.weight.data() != dense.net2.weight.data());
  half.net2.weight.data()[0] += 1;
  half.net1.weight.data()[0] += 1;
  check_close(whole(mlp()), whole(dense), 0);

  const detail::WeakRef<detail::TensorImpl> memory = dense.net1.weight.impl();
  const auto moved = parallelize_module<pair>(std::move(dense), mesh);
  CHECK(!dense.net1.weight.defined());
  CHECK(!dense.net1.bias.defined());
  CHECK(!dense.net2.weight.defined());
  CHECK(memory.expired());
  check_close(whole(mlp()), whole(moved), 0);
}

SHARDWISE_TEST_RANKS("TE-7 tied parameters stay tied where their placements agree", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("embedding"_path = ColwiseParallel{}, "output"_path = RowwiseParallel{});
  auto dense = tied();
  auto sharded = parallelize_module<plan>(dense, mesh);
  CHECK(sharded.embedding.weight.impl() == sharded.output.weight.impl());
  CHECK(parameters(sharded).size() == 2);
  CHECK(sharded.output.weight.local_shape() == Shape<2>{16, 2});
  Tensor<std::int64_t, 1> index({6});
  for (std::int64_t i = 0; i < 6; ++i) index.data()[i] = 3 * i % 16;
  train_alike(dense, sharded, index, index, 2, 0.01);

  static constexpr auto apart = parallelize_plan("embedding"_path = RowwiseParallel{.input_layouts = Replicate{}},
                                                 "output"_path = RowwiseParallel{.input_layouts = Replicate{}});
  CHECK_THROWS_AS(parallelize_module<apart>(dense, mesh), PlanError);
}

SHARDWISE_TEST_RANKS("frozen parameters stay frozen, absent ones absent", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = mlp();
  dense.net1.weight.requires_grad(false);
  dense.net2.bias.requires_grad(false);
  const auto sharded = parallelize_module<pair>(dense, mesh);
  CHECK(!sharded.net1.weight.requires_grad());
  CHECK(sharded.net1.bias.requires_grad());
  CHECK(sharded.net2.weight.requires_grad());
  CHECK(!sharded.net2.bias.requires_grad());
  backward(sum(sharded(rand<float>({3, 10}))));
  CHECK(!sharded.net1.weight.has_grad());
  CHECK(sharded.net1.bias.has_grad());
  const auto before = whole(sharded);
  optim::SGD(parameters(sharded), {.lr = 0.5}).step();
  const auto after = whole(sharded);
  CHECK(before.at("net1.weight") == after.at("net1.weight"));
  CHECK(before.at("net2.bias") == after.at("net2.bias"));
  CHECK(before.at("net1.bias") != after.at("net1.bias"));

  manual_seed(5);
  Mlp<> bare{nn::linear(10, 16, {.bias = false}), nn::linear(16, 10, {.bias = false})};
  auto without = parallelize_module<pair>(bare, mesh);
  CHECK(!without.net1.bias.defined());
  CHECK(parameters(without).size() == 2);
  const auto x = rand<float>({3, 10});
  train_alike(bare, without, x, x);
}

SHARDWISE_TEST_RANKS("a plan for one layer leaves the rest plain, and they train together", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = mlp();
  auto sharded = parallelize_module<first_only>(dense, mesh);
  const auto x = rand<float>({3, 10});
  train_alike(dense, sharded, x, x);
  std::string names;
  for (const auto& p : parameters(sharded)) names += p.name + " ";
  CHECK(names == "net1.weight net1.bias net2.weight net2.bias ");
}

SHARDWISE_TEST_RANKS("DM-2 contexts nest, by the type of the mesh", 4) {
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto two = grid.get<"tp">();
  const auto four = init_device_mesh<"tp">(world, {4});
  const auto other = init_device_mesh<"dp">(world, {4});
  using Mesh = std::remove_cvref_t<decltype(four)>;
  static_assert(std::is_same_v<Mesh, std::remove_cvref_t<decltype(two)>>);
  manual_seed(5);
  const auto dense = nn::linear(8, 8);
  const auto rows = [&] { return parallelize_module<ColwiseParallel{}, Mesh>(dense).weight.local_shape()[0]; };
  CHECK_THROWS_AS(rows(), Error);
  {
    MeshContext outer(four);
    CHECK(rows() == 2);
    {
      MeshContext inner(two);
      MeshContext unrelated(other);
      CHECK(rows() == 4);
    }
    CHECK(rows() == 2);
  }
  CHECK_THROWS_AS(rows(), Error);
}

SHARDWISE_TEST_RANKS("DM-7 a model on two of the ranks trains there; the others run the same program and hold nothing",
                     4) {
  const bool member = world.rank() % 2 == 0;
  const auto mesh = init_device_mesh<"tp">(world, {2}, {.ranks = {0, 2}});
  auto dense = mlp();
  auto sharded = parallelize_module<pair>(dense, mesh);
  manual_seed(9);
  const auto x = rand<float>({5, 10});
  if (member) return train_alike(dense, sharded, x, x);
  optim::SGD sgd(parameters(sharded), {.lr = 0.05});
  for (int step = 0; step < 3; ++step) {
    const auto y = sharded(x);
    CHECK(y.size() == 0);
    backward(sum(y * y));
    settle_gradients(parameters(sharded));
    CHECK(sharded.net2.weight.grad().size() == 0);
    sgd.step();
    sgd.zero_grad();
  }
}

SHARDWISE_TEST_RANKS("DM-7 operators and their gradients on two of the ranks; the others get nothing", 4) {
  const bool member = world.rank() % 2 == 0;
  const auto mesh = init_device_mesh<"tp">(world, {2}, {.ranks = {0, 2}});
  auto x = rand<float>({3, 4});
  x.requires_grad(true);
  const auto w = distribute_tensor<Replicate>(rand<float>({4, 5}), mesh);
  const auto there = from_local<Shard<0>>(x, mesh, {.global_shape = Shape<2>{6, 4}});
  const auto y = layer_norm(matmul(softmax<1>(gelu(there * 0.5f + 1.0f)), w));
  CHECK(y.shape() == Shape<2>{6, 5});
  CHECK(y.size() == (member ? 15 : 0));
  backward(redistribute<Replicate>(sum(y * y)));
  CHECK(x.has_grad() == member);
}
