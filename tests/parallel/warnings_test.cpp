// Plans that do nothing, in part or at all, say so once (PA-13, PA-16); strict ones do not compile, see tests/fail.
#include <shardwise/testing/doctest.hpp>

#include "parallel/support.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

Mlp<> mlp() { return test::mlp(10, 16, 10); }

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

SHARDWISE_TEST_RANKS("PA-13 one warning lists every rule that matches nothing; the others work", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan(
      "net0.hello.world"_path = ColwiseParallel{}, "net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{},
      "net1.deeper"_path = SequenceParallel{}, "net[34]"_path = RowwiseParallel{});
  std::vector<std::string> warnings;
  ScopedWarningHandler handler([&](std::string_view text) { warnings.emplace_back(text); });
  auto dense = mlp();
  auto sharded = parallelize_module<plan>(dense, mesh);
  REQUIRE(warnings.size() == 1);
  for (const char* unmatched : {"\"net0.hello.world\"", "\"net1.deeper\"", "\"net[34]\""})
    CHECK(contains(warnings[0], unmatched));
  for (const char* matched : {"\"net1\"", "\"net2\""}) CHECK(!contains(warnings[0], matched));
  const auto x = rand<float>({4, 10});
  train_alike(dense, sharded, x, x);
}

SHARDWISE_TEST_RANKS("PA-16 an empty plan warns and gives a plain copy of the source's model", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan();
  std::vector<std::string> warnings;
  ScopedWarningHandler handler([&](std::string_view text) { warnings.emplace_back(text); });
  manual_seed(static_cast<std::uint64_t>(world.rank()));
  Mlp<> dense{nn::linear(10, 16), nn::linear(16, 10)};
  const auto same = parallelize_module<plan>(dense, mesh);
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "empty"));
  static_assert(!decltype(same.net1.weight)::TensorType::distributed);
  CHECK(same.net1.weight.data() != dense.net1.weight.data());
  manual_seed(0);
  check_close(whole(Mlp<>{nn::linear(10, 16), nn::linear(16, 10)}), whole(same), 0);
}

SHARDWISE_TEST_RANKS("a strict plan whose rules all match is a plan", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "*2"_path = RowwiseParallel{});
  int warnings = 0;
  ScopedWarningHandler handler([&](std::string_view) { ++warnings; });
  const auto a = parallelize_module<strict(plan)>(mlp(), mesh);
  const auto b = parallelize_module<plan>(mlp(), mesh);
  static_assert(std::is_same_v<decltype(a), decltype(b)>);
  CHECK(warnings == 0);
}

SHARDWISE_TEST_RANKS("a Prepare style joins a parameter style, in plan order", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  static constexpr auto plan = parallelize_plan(
      "net1"_path = PrepareModuleInput{.input_layouts = Shard<0>{}, .desired_input_layouts = Replicate{}},
      "net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{.use_local_output = false},
      "net2"_path = PrepareModuleOutput{.output_layouts = Replicate{}, .desired_output_layouts = Shard<0>{}});
  auto dense = mlp();
  const auto sharded = parallelize_module<plan>(dense, mesh);
  const auto x = rand<float>({8, 10});
  CommDebugMode comm;
  const auto y = sharded(part<Shard<0>>(x, mesh));
  check_counts(comm, {{Collective::all_gather, 1}, {Collective::all_reduce, 1}}, {});
  CHECK(allclose(y, part<Shard<0>>(dense(x), mesh), {.rtol = 1e-5, .atol = 1e-5}));
}
