// Modules inside modules: lists, arrays, nesting, the root; equal remaining rules are one type; names.
#include <shardwise/testing/doctest.hpp>

#include <any>
#include <optional>
#include <type_traits>
#include <variant>

#include "parallel/support.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <class Scope = Unsharded<float>>
struct Array {
  ChildArray<Scope, "layers", Mlp, 3> layers;
  auto operator()(const auto& x) const { return layers(x); }
};

template <class Scope = Unsharded<float>>
struct Deep {
  Child<Scope, "a", Stacked> a;
  Child<Scope, "b", Mlp> b;
  double scale = 1;
  auto operator()(const auto& x) const { return b(a(x)) * static_cast<float>(scale); }
};

// Members that may be there or not, and configuration whose types are made of anything.
template <class Scope = Unsharded<float>>
struct Optional {
  std::optional<Child<Scope, "first", nn::Linear>> first;
  Child<Scope, "last", nn::Linear> last;
  std::optional<Param<Scope, "shift", 1>> shift;
  std::optional<ChildList<Scope, "more", nn::Linear>> more;
  std::optional<double> scale;
  std::variant<int, double> choice;
  std::any anything;
  auto operator()(const auto& x) const {
    const auto y = last(first ? (*first)(x) : x) * scale.value_or(1.0);
    const auto z = shift ? y + *shift : y;
    return more ? (*more)[0](z) : z;
  }
};
// Every activation where a module is wanted.
template <class Scope = Unsharded<float>>
struct Activations {
  Child<Scope, "linear", nn::Linear> linear;
  Child<Scope, "relu", nn::ReLU> relu{};
  Child<Scope, "gelu", nn::GELU> gelu{};
  Child<Scope, "silu", nn::SiLU> silu{};
  Child<Scope, "tanh", nn::Tanh> tanh{};
  Child<Scope, "norm", nn::RMSNorm> norm{};
  auto operator()(const auto& x) const { return norm(tanh(silu(gelu(relu(linear(x)))))); }
};

Mlp<> mlp(std::uint64_t seed) { return test::mlp(6, 8, 6, seed); }

template <class M>
std::string parameter_names(const M& module) {
  std::string names;
  for_each_parameter(module, [&](std::string_view name, const auto&) { names += std::string(name) + " "; });
  return names;
}
template <class M>
std::string module_names(const M& module) {
  std::string names;
  for_each_module(module, [&](std::string_view name, const auto&) { names += "[" + std::string(name) + "]"; });
  return names;
}

}  // namespace

SHARDWISE_TEST_RANKS("a list has one type for all its layers, and names by index", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("layers.*.net1"_path = ColwiseParallel{}, "layers.*.net2"_path = RowwiseParallel{});
  Stacked<> dense{{mlp(1), mlp(2)}};
  manual_seed(3);
  dense.layers.push_back({nn::linear(6, 8), nn::linear(8, 6)});
  auto sharded = parallelize_module<plan>(dense, mesh);
  CHECK(sharded.layers.size() == 3);
  CHECK(dense.layers[2].index == 2);
  CHECK(sharded.layers[2].index == 2);
  CHECK(parameter_names(sharded) == parameter_names(dense));
  CHECK(parameter_names(sharded).substr(0, 34) == "layers.0.net1.weight layers.0.net1");
  CHECK(
      module_names(sharded) ==
      "[][layers.0][layers.0.net1][layers.0.net2][layers.1][layers.1.net1][layers.1.net2][layers.2][layers.2.net1][layers.2.net2]");
  CHECK(sharded.layers[2].net1.weight.local_shape() == Shape<2>{2, 6});
  manual_seed(9);
  const auto x = rand<float>({5, 6});
  train_alike(dense, sharded, x, x);
  int warnings = 0;
  ScopedWarningHandler handler([&](std::string_view) { ++warnings; });
  CHECK(parallelize_module<plan>(Stacked<>{}, mesh).layers.empty());
  CHECK(warnings == 1);
}

SHARDWISE_TEST_RANKS("an array has rules of its own for every index", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan("layers.[02].net1"_path = ColwiseParallel{}, "layers.[02].net2"_path = RowwiseParallel{},
                       "layers.1.net*"_path = ColwiseParallel{.output_layouts = Replicate{}});
  Array<> dense{{mlp(1), mlp(2), mlp(3)}};
  auto sharded = parallelize_module<plan>(dense, mesh);
  using First = std::remove_cvref_t<decltype(sharded.layers.get<0>())>::Module;
  using Second = std::remove_cvref_t<decltype(sharded.layers.get<1>())>::Module;
  using Third = std::remove_cvref_t<decltype(sharded.layers.get<2>())>::Module;
  static_assert(std::is_same_v<First, Third>);
  static_assert(!std::is_same_v<First, Second>);
  CHECK(sharded.layers.get<0>().net2.weight.local_shape() == Shape<2>{6, 2});
  CHECK(sharded.layers.get<1>().net2.weight.local_shape() == Shape<2>{world.rank() < 3 ? 2 : 0, 8});
  CHECK(parameter_names(sharded) == parameter_names(dense));
  manual_seed(9);
  const auto x = rand<float>({5, 6});
  train_alike(dense, sharded, x, x);
}

SHARDWISE_TEST_RANKS("plans reach down through children and lists; the root has a style too", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan =
      parallelize_plan(""_path = PrepareModuleInputOutput{.input_layouts = Shard<0>{},
                                                          .desired_input_layouts = Replicate{},
                                                          .use_local_input = true,
                                                          .output_layouts = Replicate{},
                                                          .desired_output_layouts = Shard<0>{}},
                       "a.layers.*.net1"_path = ColwiseParallel{}, "a.layers.*.net2"_path = RowwiseParallel{},
                       "b.net1"_path = ColwiseParallel{}, "b.net2"_path = RowwiseParallel{});
  Deep<> dense{Stacked<>{{mlp(1), mlp(2)}}, mlp(3), 0.5};
  auto sharded = parallelize_module<plan>(dense, mesh);
  // The same rules remain below both: one type.
  static_assert(std::is_same_v<std::remove_cvref_t<decltype(sharded.a.layers[0])>::Base::Module,
                               std::remove_cvref_t<decltype(sharded.b)>::Module>);
  CHECK(sharded.scale == 0.5);
  CHECK(module_names(sharded) == module_names(dense));
  CHECK(parameter_names(sharded) == parameter_names(dense));
  manual_seed(9);
  const auto x = rand<float>({8, 6});
  const auto y = dense(x);
  const auto z = sharded(part<Shard<0>>(x, mesh));
  CHECK(allclose(z, part<Shard<0>>(y, mesh), {.rtol = 1e-5, .atol = 1e-6}));
  backward(sum(y * y));
  backward(sum(z * z));
  settle_gradients(parameters(sharded));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 2e-5);
}

SHARDWISE_TEST_RANKS("activations as modules give what the functions give, and go along with a plan", 4) {
  manual_seed(11);
  Activations<> dense{.linear = nn::linear(6, 8, {.bias = false})};
  dense.norm = nn::rms_norm(8);
  dense.gelu.approximate = Approximate::tanh;
  const auto x = randn<float>({5, 6});
  const auto y = dense(x);
  CHECK(!dense.linear.bias.defined());
  const auto inner = shardwise::gelu(shardwise::relu(matmul(x, transpose<0, 1>(dense.linear.weight.tensor()))),
                                     {.approximate = Approximate::tanh});
  CHECK(allclose(y, rms_norm(shardwise::tanh(shardwise::silu(inner))), {.rtol = 1e-5, .atol = 1e-6}));

  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan("linear"_path = ColwiseParallel{.use_local_output = false},
                                                "norm"_path = PrepareModuleInput{.input_layouts = Shard<1>{},
                                                                                 .desired_input_layouts = Replicate{},
                                                                                 .use_local_output = true});
  const auto sharded = parallelize_module<plan>(dense, mesh);
  CHECK(sharded.gelu.approximate == Approximate::tanh);
  const auto z = sharded(x);
  CHECK(allclose(z, y, {.rtol = 1e-5, .atol = 1e-6}));
  backward(sum(y * y));
  backward(sum(z * z));
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 2e-5);
}

TEST_CASE("a layer that was never made says how to make it") {
  const Mlp<> empty;
  CHECK_THROWS_WITH_AS((void)empty(ones<float>({2, 6})),
                       "shardwise::nn::Linear: it has no weight yet; make it with nn::linear(in, out)", Error);
  const nn::Embedding<Unsharded<float>> table;
  CHECK_THROWS_WITH_AS(
      (void)table(zeros<std::int64_t>({2})),
      "shardwise::nn::Embedding: it has no table yet; make it with nn::embedding(vocabulary, features)", Error);
}

SHARDWISE_TEST_RANKS("optional modules and parameters that are there are sharded and trained as on one device", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {3});
  static constexpr auto plan = parallelize_plan("first"_path = ColwiseParallel{}, "last"_path = RowwiseParallel{});
  manual_seed(3);
  Optional<> dense;
  dense.last = nn::linear(7, 4);
  dense.first = nn::linear(5, 7);
  dense.shift = ones<float>({4});
  dense.more.emplace().push_back(nn::linear(4, 3));
  dense.scale = 0.5;
  dense.choice = 7.5;
  dense.anything = 3;
  CHECK(parameter_names(dense) == "first.weight first.bias last.weight last.bias shift more.0.weight more.0.bias ");
  auto sharded = parallelize_module<strict(plan)>(dense, mesh);
  REQUIRE(sharded.first.has_value());
  CHECK(sharded.first->weight.local_shape() == Shape<2>{world.rank() < 2 ? 3 : 1, 5});
  CHECK(sharded.shift->data() != dense.shift->data());
  CHECK(sharded.scale == 0.5);
  CHECK(std::get<double>(sharded.choice) == 7.5);
  CHECK(std::any_cast<int>(sharded.anything) == 3);
  CHECK(parameter_names(sharded) == parameter_names(dense));
  CHECK(module_names(sharded) == "[][first][last][more.0]");
  const auto x = rand<float>({2, 5});
  train_alike(dense, sharded, x, x);
  zero_grad(parameters(sharded));
  CHECK(!sharded.first->weight.has_grad());
}

SHARDWISE_TEST_RANKS("a rule for an optional module that is not there warns, in a strict plan it throws", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {3});
  static constexpr auto plan =
      parallelize_plan("first"_path = ColwiseParallel{}, "last"_path = RowwiseParallel{.input_layouts = Replicate{}},
                       "more.*"_path = ColwiseParallel{});
  manual_seed(4);
  Optional<> dense;
  dense.last = nn::linear(7, 4);
  std::string warning;
  const ScopedWarningHandler handler([&](std::string_view text) { warning += text; });
  auto sharded = parallelize_module<plan>(dense, mesh);
  CHECK(warning == "parallelize_module: these rules of the plan match no module and do nothing: \"first\", \"more.*\"");
  CHECK(!sharded.first.has_value());
  CHECK(!sharded.shift.has_value());
  CHECK(parameter_names(sharded) == "last.weight last.bias ");
  const auto x = rand<float>({2, 7});
  train_alike(dense, sharded, x, x);
  CHECK_THROWS_WITH_AS(
      (void)parallelize_module<strict(plan)>(dense, mesh),
      "shardwise::parallelize_module: rules of a strict plan match no module, since a list is empty or an "
      "optional module is not there: \"first\", \"more.*\"; fill it first, or drop the rule",
      PlanError);
  CHECK_THROWS_AS((void)parallelize_module<strict(
                      parallelize_plan("layers.*"_path = PrepareModuleOutput{.output_layouts = Replicate{},
                                                                             .desired_output_layouts = Replicate{}}))>(
                      Stacked<>{}, mesh),
                  PlanError);
}
