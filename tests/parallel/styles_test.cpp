// The styles of linear and embedding layers, TS-1 to TS-7 of PyTorch's test_tp_style.py: shapes, values against one device, and
// collectives by kind, forward and backward.
#include <shardwise/testing/doctest.hpp>

#include "parallel/support.hpp"

using namespace shardwise;
using namespace test;

namespace {

constexpr auto all_gather = Collective::all_gather;
constexpr auto all_reduce = Collective::all_reduce;
constexpr auto reduce_scatter = Collective::reduce_scatter;

auto seeded_linear() {
  manual_seed(3);
  return nn::linear(16, 16);
}
auto seeded_embedding() {
  manual_seed(3);
  return nn::embedding(16, 16);
}
Tensor<std::int64_t, 2> tokens() {
  Tensor<std::int64_t, 2> x({4, 2});
  for (std::int64_t i = 0; i < 8; ++i) x.data()[i] = (i * 5 + 3) % 16;
  return x;
}

// One pass through both; `In` and `Out` say where the local input and output lie.
template <class In, class Out, class Dense, class Sharded, class Mesh>
void compare(Dense& dense, const Sharded& sharded, Tensor<float, 2> whole_x, const Mesh& mesh, const Kinds& forward,
             const Kinds& back) {
  auto x = part<In>(whole_x, mesh);
  x.requires_grad(true);
  whole_x.requires_grad(true);
  const auto y = dense(whole_x);
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(x);
  backward(sum(z * z));
  check_counts(comm, forward, back);
  const auto expected = part<Out>(y, mesh);
  CHECK(z.shape() == expected.shape());
  CHECK(allclose(z, expected, {.rtol = 1e-5, .atol = 1e-5}));
  CHECK(allclose(x.grad(), part<In>(whole_x.grad(), mesh), {.rtol = 1e-4, .atol = 1e-4}));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-4);
}

}  // namespace

SHARDWISE_TEST_RANKS("TS-1 column-wise: nothing forward, one all_reduce backward", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_linear();
  const auto sharded = parallelize_module<ColwiseParallel{}>(dense, mesh);
  CHECK(sharded.weight.local_shape() == Shape<2>{4, 16});
  CHECK(sharded.bias.local_shape() == Shape<1>{4});
  const auto x = rand<float>({8, 16});
  CHECK(sharded(x).shape() == Shape<2>{8, 4});
  compare<Replicate, Shard<1>>(dense, sharded, x, mesh, {}, {{all_reduce, 1}});
}

SHARDWISE_TEST_RANKS("TS-2 column-wise from sharded rows: all_gather and its transpose", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_linear();
  const auto sharded = parallelize_module<ColwiseParallel{.input_layouts = Shard<0>{}}>(dense, mesh);
  compare<Shard<0>, Shard<1>>(dense, sharded, rand<float>({32, 16}), mesh, {{all_gather, 1}}, {{reduce_scatter, 1}});
}

SHARDWISE_TEST_RANKS("TS-3 column-wise embedding: nothing at all", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_embedding();
  const auto sharded = parallelize_module<ColwiseParallel{}>(dense, mesh);
  CHECK(sharded.weight.local_shape() == Shape<2>{16, 4});
  const auto y = dense(tokens());
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(tokens());
  backward(sum(z * z));
  check_counts(comm, {}, {});
  CHECK(equal(z, part<Shard<2>>(y, mesh)));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-5);
}

SHARDWISE_TEST_RANKS("TS-4 row-wise: one all_reduce forward, nothing backward", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_linear();
  const auto sharded = parallelize_module<RowwiseParallel{}>(dense, mesh);
  CHECK(sharded.weight.local_shape() == Shape<2>{16, 4});
  CHECK(sharded.bias.local_shape() == Shape<1>{16});
  compare<Shard<1>, Replicate>(dense, sharded, rand<float>({8, 16}), mesh, {{all_reduce, 1}}, {});
}

SHARDWISE_TEST_RANKS("TS-5 row-wise to sharded rows: reduce_scatter and its transpose", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_linear();
  const auto sharded = parallelize_module<RowwiseParallel{.output_layouts = Shard<0>{}}>(dense, mesh);
  manual_seed(4);
  auto x = rand<float>({8, 16});
  auto local = part<Shard<1>>(x, mesh);
  local.requires_grad(true);
  const auto y = dense(x);
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(local);
  backward(sum(z * z));
  check_counts(comm, {{reduce_scatter, 1}}, {{all_gather, 1}});
  CHECK(z.shape() == Shape<2>{2, 16});
  CHECK(allclose(z, part<Shard<0>>(y, mesh), {.rtol = 1e-5, .atol = 1e-5}));
  settle_gradients(parameters(sharded));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-4);
}

SHARDWISE_TEST_RANKS("TS-6 row-wise embedding: one all_reduce forward, nothing backward", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_embedding();
  const auto sharded = parallelize_module<RowwiseParallel{.input_layouts = Replicate{}}>(dense, mesh);
  CHECK(sharded.weight.local_shape() == Shape<2>{4, 16});
  const auto y = dense(tokens());
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(tokens());
  backward(sum(z * z));
  check_counts(comm, {{all_reduce, 1}}, {});
  CHECK(equal(z, y));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-5);
}

SHARDWISE_TEST_RANKS("TS-7 row-wise embedding to shards: reduce_scatter and its transpose", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = seeded_embedding();
  const auto sharded =
      parallelize_module<RowwiseParallel{.input_layouts = Replicate{}, .output_layouts = Shard<1>{}}>(dense, mesh);
  Tensor<std::int64_t, 1> index({8});
  for (std::int64_t i = 0; i < 8; ++i) index.data()[i] = (i * 7) % 16;
  const auto y = dense(index);
  backward(sum(y * y));
  CommDebugMode comm;
  const auto z = sharded(index);
  backward(sum(z * z));
  check_counts(comm, {{reduce_scatter, 1}}, {{all_gather, 1}});
  CHECK(z.shape() == Shape<2>{8, 4});
  CHECK(equal(z, part<Shard<1>>(y, mesh)));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-5);
}

SHARDWISE_TEST_RANKS("the vocabulary and the features need not divide", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  manual_seed(8);
  auto dense = nn::embedding(10, 7);
  const auto rows = parallelize_module<RowwiseParallel{.input_layouts = Replicate{}}>(dense, mesh);
  const auto columns = parallelize_module<ColwiseParallel{.output_layouts = Replicate{}}>(dense, mesh);
  Tensor<std::int64_t, 2> index({2, 5});
  for (std::int64_t i = 0; i < 10; ++i) index.data()[i] = i;
  const auto y = dense(index);
  CHECK(equal(rows(index), y));
  CHECK(equal(columns(index), y));
  backward(sum(y * y));
  const auto a = rows(index);
  backward(sum(a * a));
  const auto b = columns(index);
  backward(sum(b * b));
  check_close(whole(dense, Take::gradient), whole(rows, Take::gradient), 1e-5);
  check_close(whole(dense, Take::gradient), whole(columns, Take::gradient), 1e-5);
}
