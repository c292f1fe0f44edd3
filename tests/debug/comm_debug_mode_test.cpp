// CommDebugMode (CM-1 to CM-9 of PyTorch's test_comm_mode*.py where they mean something here): kinds, bytes, axes, modules, passes.
#include <shardwise/testing/doctest.hpp>

#include <memory>
#include <span>
#include <string>

#include "parallel/support.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <class Scope = Unsharded<float>>
struct Norms {
  Child<Scope, "first", nn::LayerNorm> first;
  Child<Scope, "second", nn::LayerNorm> second;
  auto operator()(const auto& x) const { return second(first(x)); }
};

Tensor<std::int64_t, 2> tokens() {
  Tensor<std::int64_t, 2> x({8, 8});
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = (i * 5 + i / 8) % 8;
  return x;
}

bool has_row(const std::string& table, std::initializer_list<const char*> cells) {
  std::size_t at = 0;
  while (at < table.size()) {
    const std::size_t end = table.find('\n', at);
    const std::string line = table.substr(at, end - at);
    bool all = true;
    for (const char* cell : cells) all = all && line.find(cell) != std::string::npos;
    if (all) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace

SHARDWISE_TEST_RANKS("CM-1 one move of each kind is one collective of each kind, with its bytes", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto rows = rand<float, Shard<0>>(mesh, {8, 4});
  const auto terms = from_local<Partial<>>(ones<float>({8, 4}), mesh);
  constexpr std::int64_t part = 2 * 4 * 4;  // bytes of a shard
  CommDebugMode comm;
  CHECK(comm.total_count() == 0);  // CM-8
  CHECK(comm.total_bytes() == 0);
  (void)redistribute<Replicate>(rows);
  CHECK(comm.count(Collective::all_gather) == 1);
  CHECK(comm.bytes(Collective::all_gather) == 3 * part);
  (void)redistribute<Shard<0>>(terms);
  CHECK(comm.count(Collective::reduce_scatter) == 1);
  CHECK(comm.bytes(Collective::reduce_scatter) == 3 * part);
  (void)redistribute<Replicate>(terms);
  CHECK(comm.count(Collective::all_reduce) == 1);
  CHECK(comm.bytes(Collective::all_reduce) == 2 * 3 * part);  // as if scattered and gathered
  (void)redistribute<Shard<1>>(rows);
  CHECK(comm.count(Collective::all_to_all) == 1);
  CHECK(comm.bytes(Collective::all_to_all) == part * 3 / 4);
  (void)redistribute<Shard<0>>(from_local<Replicate>(ones<float>({8, 4}), mesh));
  CHECK(comm.total_count() == 4);
  CHECK(comm.axis_count("tp") == 4);
  CHECK(comm.axis_bytes("tp") == comm.total_bytes());
  CHECK(comm.axis_count("dp") == 0);
}

SHARDWISE_TEST_RANKS("CM-4 calls on a communicator count once under their own name", 4) {
  CommDebugMode comm;
  const float one = 1;
  float sum = 0;
  world.all_reduce(std::span<const float>(&one, 1), std::span<float>(&sum, 1), ReduceOp::sum);
  CHECK(sum == 4);
  world.broadcast(std::span<float>(&sum, 1), 2);
  world.barrier();  // moves nothing
  CHECK(comm.count(Collective::all_reduce) == 1);
  CHECK(comm.count(Collective::all_reduce, "") == 1);
  CHECK(comm.count(Collective::broadcast) == 1);
  CHECK(comm.total_count() == 2);
  comm.reset();
  CHECK(comm.total_count() == 0);
  CHECK(comm.rows().empty());
}

SHARDWISE_TEST_RANKS("CM-3 two sharded operands: the one gather that the source says", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto a = rand<float, Shard<0>>(mesh, {16, 8});
  const auto b = rand<float, Shard<0>>(mesh, {8, 32});
  CommDebugMode comm;
  const auto y = matmul(a, redistribute<Replicate>(b));
  CHECK(y.local_shape() == Shape<2>{4, 32});
  CHECK(comm.total_count() == 1);
  CHECK(comm.count(Collective::all_gather) == 1);
}

SHARDWISE_TEST_RANKS("CM-7 communication belongs to the module that asked for it, and to those around it", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("layers.*.net1"_path = ColwiseParallel{}, "layers.*.net2"_path = RowwiseParallel{});
  const auto model = parallelize_module<plan>(stacked(8, 16), mesh);
  auto x = rand<float>({4, 8});
  x.requires_grad(true);
  CommDebugMode comm;
  const auto y = model(x);
  CHECK(comm.module_count("") == 2);
  CHECK(comm.module_count("layers") == 2);
  CHECK(comm.module_count("layers.0") == 1);
  CHECK(comm.module_count("layers.0.net1") == 0);
  CHECK(comm.module_count("layers.0.net2") == 1);
  CHECK(comm.module_count("layers.1.net2", Collective::all_reduce) == 1);
  CHECK(comm.module_count("layers.1.net2", Collective::all_gather) == 0);
  CHECK(comm.module_count("layer") == 0);
  CHECK(comm.module_count("layers.0.net") == 0);
  CHECK(comm.forward_count() == 2);
  CHECK(comm.backward_count() == 0);
  backward(sum(y));
  CHECK(comm.forward_count() == 2);
  CHECK(comm.backward_count() == 2);
  CHECK(comm.module_count("layers.0.net1") == 1);  // its input's gradient
  CHECK(comm.module_count("layers.1.net1") == 1);
  CHECK(comm.module_count("layers.0.net2") == 1);

  const std::string table = comm.table();
  INFO(table);
  CHECK(has_row(table, {"operation", "axis", "pass", "module", "count", "bytes"}));
  CHECK(has_row(table, {"all_reduce", "tp", "forward", "layers.0.net2", " 1"}));
  CHECK(has_row(table, {"all_reduce", "tp", "backward", "layers.1.net1", " 1"}));
  CHECK(has_row(table, {"total", " 4", std::to_string(comm.total_bytes()).c_str()}));
  CHECK(!has_row(table, {"layers.0.net1", "forward"}));

  (void)redistribute<Replicate>(rand<float, Shard<0>>(mesh, {4, 2}));
  CHECK(comm.module_count("layers") == 4);  // outside any module
  CHECK(comm.module_count("") == 5);
}

SHARDWISE_TEST_RANKS("the axes of a mesh apart, and several at once under their joined name", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto x = rand<float, Shard<0>, Replicate>(mesh, {4, 4});
  const auto y = rand<float, Replicate, Shard<0>>(mesh, {4, 4});
  const auto both = from_local<Partial<>, Partial<>>(ones<float>({4, 4}), mesh);
  CommDebugMode comm;
  (void)redistribute<On<"dp", Replicate>>(x);
  CHECK(comm.axis_count("dp") == 1);
  CHECK(comm.axis_bytes("dp") == 32);
  CHECK(comm.axis_count("tp") == 0);
  (void)redistribute<On<"tp", Replicate>>(y);
  CHECK(comm.axis_count("tp") == 1);
  CHECK(comm.count(Collective::all_gather, "tp") == 1);
  CHECK(comm.count(Collective::all_reduce, "tp") == 0);
  (void)redistribute<Replicate, Replicate>(both);
  CHECK(comm.total_count() == 3);
  CHECK(comm.count(Collective::all_reduce, "dp_tp") == 1);
}

SHARDWISE_TEST_RANKS("CM-8 a mode that has heard nothing has no rows and counts nothing in either direction", 2) {
  const auto mesh = init_device_mesh<"tp">(world, {2});
  const auto x = rand<float, Shard<0>>(mesh, {4, 2});
  (void)redistribute<Replicate>(x);  // before it begins
  CommDebugMode comm;
  CHECK(comm.rows().empty());
  CHECK(comm.total_count() == 0);
  CHECK(comm.total_bytes() == 0);
  CHECK(comm.module_count("") == 0);
  CHECK(comm.backward_count() == 0);
  CHECK(has_row(comm.table(), {"total", " 0"}));
  (void)redistribute<Replicate>(x);
  CHECK(comm.rows().size() == 1);
  comm.reset();
  CHECK(comm.rows().empty());
  CHECK(comm.total_count() == 0);
}

SHARDWISE_TEST_RANKS("CM-6 modes nest, in any order of their ends", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = rand<float, Shard<0>>(mesh, {8, 4});
  const auto gather = [&] { (void)redistribute<Replicate>(x); };
  auto first = std::make_unique<CommDebugMode>();
  gather();
  auto second = std::make_unique<CommDebugMode>();
  gather();
  {
    CommDebugMode third;
    gather();
    CHECK(third.total_count() == 1);
  }
  CHECK(first->total_count() == 3);
  CHECK(second->total_count() == 2);
  first.reset();
  gather();
  CHECK(second->total_count() == 3);
  second.reset();
  gather();
  CommDebugMode fresh;
  CHECK(fresh.total_count() == 0);
}

SHARDWISE_TEST_RANKS("CM-2 gradients settled together are one all_reduce an axis, with the bytes of all", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan("*"_path = SequenceParallel{});
  auto model = parallelize_module<plan>(Norms<>{nn::layer_norm(12), nn::layer_norm(12)}, mesh);
  backward(sum(model(rand<float, Replicate>(mesh, {2, 8, 12}))));
  CommDebugMode comm;
  settle_gradients(parameters(model));
  CHECK(comm.total_count() == 1);
  CHECK(comm.count(Collective::all_reduce, "tp") == 1);
  CHECK(comm.bytes(Collective::all_reduce) == 2 * 4 * 12 * 4 * 3 / 4);  // four vectors, scattered and gathered
  settle_gradients(parameters(model));  // nothing pends
  CHECK(comm.total_count() == 1);
}

SHARDWISE_TEST_RANKS("CM-5 CM-6 the parameters of a model on a mesh: their names and placements", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("layers.*.net1"_path = ColwiseParallel{}, "layers.*.net2"_path = RowwiseParallel{});
  const auto model = parallelize_module<plan>(stacked(8, 16), mesh);
  std::vector<std::string> found;
  for_each_parameter(model, [&](std::string_view name, const auto& p) {
    found.push_back(std::string(name) + " " + detail::to_string(p.placements));
  });
  CHECK(found == std::vector<std::string>{"layers.0.net1.weight S(0)", "layers.0.net1.bias S(0)",
                                          "layers.0.net2.weight S(1)", "layers.0.net2.bias R",
                                          "layers.1.net1.weight S(0)", "layers.1.net1.bias S(0)",
                                          "layers.1.net2.weight S(1)", "layers.1.net2.bias R"});
}

SHARDWISE_TEST_RANKS("CM-9 TE-4 a transformer, tensor-parallel: its communication by module", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan(
      "*_embeddings"_path = RowwiseParallel{.input_layouts = Replicate{}},
      "layers.*.attention.w[qkv]"_path = ColwiseParallel{}, "layers.*.attention.wo"_path = RowwiseParallel{},
      "layers.*.feed_forward.w1"_path = ColwiseParallel{}, "layers.*.feed_forward.w2"_path = RowwiseParallel{},
      "output"_path = ColwiseParallel{.output_layouts = Replicate{}});
  auto dense = transformer(8, 16, 16);
  const auto model = parallelize_module<plan>(dense, mesh);
  const auto x = tokens();
  const auto positions = arange<std::int64_t>({8});
  CommDebugMode comm;
  const auto y = model(x, positions);
  check_counts(comm, {{Collective::all_reduce, 6}, {Collective::all_gather, 1}}, {});
  const auto reductions = [&](std::string_view module) { return comm.module_count(module, Collective::all_reduce); };
  CHECK(reductions("tok_embeddings") == 1);
  CHECK(reductions("pos_embeddings") == 1);
  for (const char* layer : {"layers.0", "layers.1"}) {
    const std::string name = layer;
    CHECK(reductions(name) == 2);
    CHECK(reductions(name + ".attention") == 1);
    CHECK(reductions(name + ".attention.wo") == 1);
    CHECK(reductions(name + ".attention.wq") == 0);
    CHECK(reductions(name + ".feed_forward") == 1);
    CHECK(reductions(name + ".feed_forward.w2") == 1);
  }
  CHECK(comm.module_count("output", Collective::all_gather) == 1);
  CHECK(comm.module_count("output") == 1);

  // PyTorch: 9, as wq, wk and wv reduce the gradient of their input each.
  const auto z = dense(x, positions);
  comm.reset();
  backward(sum(y * y));
  check_counts(comm, {}, {{Collective::all_reduce, 5}});
  backward(sum(z * z));
  CHECK(allclose(detach(y), detach(z), {.rtol = 1e-4, .atol = 1e-4}));
  check_close(whole(dense, Take::gradient), whole(model, Take::gradient), 1e-3);
  comm.reset();
  optim::SGD(parameters(model), {.lr = 0.25}).step();
  CHECK(comm.total_count() == 0);
}

namespace {

constexpr auto sequence_plan = parallelize_plan(
    "tok_embeddings"_path = RowwiseParallel{.input_layouts = Replicate{}, .output_layouts = Shard<1>{}},
    "pos_embeddings"_path = RowwiseParallel{.input_layouts = Replicate{}, .output_layouts = Shard<0>{}},
    "norm"_path = SequenceParallel{}, "layers.*.*_norm"_path = SequenceParallel{},
    "layers.*.attention"_path = PrepareModuleInput{.input_layouts = Shard<1>{}, .desired_input_layouts = Replicate{}},
    "layers.*.attention.w[qkv]"_path = ColwiseParallel{},
    "layers.*.attention.wo"_path = RowwiseParallel{.output_layouts = Shard<1>{}},
    "layers.*.feed_forward.w1"_path = ColwiseParallel{.input_layouts = Shard<1>{}},
    "layers.*.feed_forward.w2"_path = RowwiseParallel{.output_layouts = Shard<1>{}},
    "output"_path = ColwiseParallel{.input_layouts = Shard<1>{}, .output_layouts = Replicate{}});

}  // namespace

SHARDWISE_TEST_RANKS("TE-5 a transformer, parallel along the sequence: at most what PyTorch communicates", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = transformer(8, 16, 16);
  auto model = parallelize_module<sequence_plan>(dense, mesh);
  const auto x = tokens();
  const auto positions = arange<std::int64_t>({8});
  CommDebugMode comm;
  const auto y = model(x, positions);
  backward(sum(y * y));
  check_counts(comm, {{Collective::reduce_scatter, 6}, {Collective::all_gather, 6}},
               {{Collective::reduce_scatter, 5}, {Collective::all_gather, 6}});
  comm.reset();
  optim::SGD optimizer(parameters(model), {.lr = 0});
  optimizer.step();  // PyTorch: 30, three for each gradient of a norm
  check_counts(comm, {{Collective::all_reduce, 1}}, {});
  const auto z = dense(x, positions);
  backward(sum(z * z));
  CHECK(allclose(detach(y), detach(z), {.rtol = 1e-4, .atol = 1e-4}));
  check_close(whole(dense, Take::gradient), whole(model, Take::gradient), 1e-3);
}

SHARDWISE_TEST_RANKS("TE-6 only what is trained costs communication in the backward pass and in the step", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto model = parallelize_module<sequence_plan>(transformer(8, 16, 16), mesh);
  const auto x = tokens();
  const auto positions = arange<std::int64_t>({8});
  const auto check = [&](const std::vector<std::string>& trained, const Kinds& in_backward, const Kinds& in_step) {
    std::size_t found = 0;
    for_each_parameter(model, [&](std::string_view name, const auto& p) {
      auto handle = p;
      const bool train = std::find(trained.begin(), trained.end(), name) != trained.end();
      handle.requires_grad(train);
      found += train ? 1 : 0;
    });
    CHECK(found == trained.size());
    const auto y = model(x, positions);
    CommDebugMode comm;
    backward(sum(y * y));
    check_counts(comm, {}, in_backward);
    comm.reset();
    optim::SGD(parameters(model), {.lr = 0.1}).step();
    check_counts(comm, in_step, {});
    zero_grad(parameters(model));
  };
  const Kinds nothing, one{{Collective::all_reduce, 1}};  // PyTorch: three for each gradient of a norm
  const Kinds whole_way{{Collective::reduce_scatter, 5}, {Collective::all_gather, 5}};
  check({"output.weight", "norm.weight", "norm.bias"}, {{Collective::reduce_scatter, 1}}, one);
  check({"tok_embeddings.weight", "output.weight"}, whole_way, nothing);
  check({"tok_embeddings.weight", "output.weight", "norm.weight", "norm.bias"}, whole_way, one);
  check({"tok_embeddings.weight", "output.weight", "norm.weight", "norm.bias", "layers.1.ffn_norm.weight",
         "layers.1.ffn_norm.bias"},
        whole_way, one);
  check({"tok_embeddings.weight", "layers.0.attention.wv.weight", "layers.0.feed_forward.w1.bias",
         "layers.1.ffn_norm.bias", "layers.1.feed_forward.w2.weight", "output.weight"},
        whole_way, one);
}

SHARDWISE_TEST_RANKS("TE-3 inference records nothing and gives what training gives", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});
  const auto dense = mlp(10, 16, 10);
  const auto model = parallelize_module<plan>(dense, mesh);
  const auto x = rand<float>({8, 10});
  const auto trained = model(x);
  CHECK(trained.requires_grad());
  const NoGrad guard;
  CommDebugMode comm;
  const auto y = model(x);
  CHECK(!y.requires_grad());
  CHECK(equal(y, detach(trained)));
  CHECK(allclose(y, dense(x), {.rtol = 1e-5, .atol = 1e-5}));
  check_counts(comm, {{Collective::all_reduce, 1}}, {});
}

SHARDWISE_TEST_RANKS("one operation forward, twice, and backward, once: two rows, and bytes that add up", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = rand<float, Shard<0>>(mesh, {8, 4});
  x.requires_grad(true);
  CommDebugMode comm;
  (void)redistribute<Shard<1>>(x);
  const auto y = redistribute<Shard<1>>(x);
  const std::int64_t one = 2 * 4 * 4 * 3 / 4;  // a shard but for what stays
  REQUIRE(comm.rows().size() == 1);
  CHECK(comm.rows()[0].count == 2);
  CHECK(comm.rows()[0].bytes == 2 * one);
  backward(y, ones<float, Shard<1>>(mesh, {8, 4}));
  CHECK(comm.forward_count() == 2);
  CHECK(comm.backward_count() == 1);
  REQUIRE(comm.rows().size() == 2);
  CHECK(comm.rows()[1].backward);
  CHECK(comm.rows()[1].bytes == one);
  CHECK(comm.bytes(Collective::all_to_all) == 3 * one);
}
