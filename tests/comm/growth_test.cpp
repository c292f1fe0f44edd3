// How the cost of redistributions grows from 8 to 1,000,000 ranks. docs/growth.md holds the tables made here: scripts/growth.sh
// writes them anew. What the planner foresees is counted by a program that runs, wherever a rank's part fits its memory.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardwise/comm/dry_run.hpp>

#include "support/models.hpp"

using namespace shardwise;
using namespace test;

namespace {

using detail::PlacementValue;

const PlacementValue r = detail::replicate_value();
const PlacementValue s0 = detail::shard_value(0);
const PlacementValue s1 = detail::shard_value(1);
const PlacementValue p = detail::partial_value();

struct Grid {
  std::int64_t a, b;
  std::int64_t ranks() const { return a * b; }
};
const Grid grids[] = {{2, 4}, {8, 8}, {16, 32}, {64, 64}, {128, 256}, {512, 512}, {1000, 1000}};

struct Transition {
  const char* name;
  PlacementValue from[2];
  PlacementValue to[2];
};
const Transition transitions[] = {
    {"(S0, S0) -> (R, R)", {s0, s0}, {r, r}},     {"(P, P) -> (R, R)", {p, p}, {r, r}},
    {"(P, P) -> (S0, S0)", {p, p}, {s0, s0}},     {"(S0, S0) -> (S1, S1)", {s0, s0}, {s1, s1}},
    {"(S0, S1) -> (S1, S0)", {s0, s1}, {s1, s0}}, {"(R, S0) -> (R, S1)", {r, s0}, {r, s1}},
    {"(P, S0) -> (S0, S1)", {p, s0}, {s0, s1}},
};

// Of a tensor of side a x side b floats: a rank of a x b holds 4 side^2 bytes of it, the same at every number of ranks.
RedistributePlan planned(const Transition& t, const Grid& grid, std::int64_t side, const CostModel& cost) {
  const std::int64_t mesh[] = {grid.a, grid.b};
  const detail::Extents shape(Shape<2>{side * grid.a, side * grid.b});
  return detail::plan({t.from, t.to, mesh, 2}, &shape, {.bytes_per_element = 4, .cost = cost});
}
// Where messages cost nothing, nothing is split.
RedistributePlan in_one_exchange(const Transition& t, const Grid& grid, std::int64_t side) {
  return planned(t, grid, side, {.seconds_per_message = 0});
}
double milliseconds(const RedistributePlan& plan, const CostModel& cost = {}) {
  return 1e3 * (plan.collectives() * cost.seconds_per_collective +
                cost.seconds(static_cast<double>(plan.messages()), static_cast<double>(4 * plan.elements())));
}

std::string decimals(double x) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.3f", x);
  return digits;
}
std::string cells(const RedistributePlan& plan) {
  return " " + std::to_string(4 * plan.elements()) + " | " + std::to_string(plan.messages()) + " | " +
         decimals(milliseconds(plan)) + " |";
}

std::string transition_tables() {
  std::string s;
  for (const Transition& t : transitions) {
    s += std::string("### ") + t.name +
         "\n\n| ranks | mesh | bytes | messages | ms | steps | bytes | messages | ms |\n" +
         "|---|---|---|---|---|---|---|---|---|\n";
    for (const Grid& grid : grids) {
      const RedistributePlan once = in_one_exchange(t, grid, 1000);
      const RedistributePlan plan = planned(t, grid, 1000, {});
      CHECK(once.collectives() == 1);
      CHECK(milliseconds(plan) <= milliseconds(once) + 1e-9);
      s += "| " + std::to_string(grid.ranks()) + " | " + std::to_string(grid.a) + " x " + std::to_string(grid.b) +
           " |" + cells(once) + " " + std::to_string(plan.collectives()) + " |" + cells(plan) + "\n";
    }
    s += "\n";
  }
  return s;
}

std::string switch_table() {
  const std::int64_t sides[] = {32, 128, 500, 1000, 4000, 16000, 64000};
  const Transition& t = transitions[3];
  std::string s = "| ranks |";
  for (const std::int64_t side : sides)
    s += " " +
         (side < 500 ? std::to_string(4 * side * side / 1000) + " kB"
                     : std::to_string(4 * side * side / 1000000) + " MB") +
         " |";
  s += "\n|---|---|---|---|---|---|---|---|\n";
  for (const Grid& grid : grids) {
    s += "| " + std::to_string(grid.ranks()) + " |";
    for (const std::int64_t side : sides) s += " " + std::to_string(planned(t, grid, side, {}).collectives()) + " |";
    s += "\n";
  }
  return s;
}

constexpr auto plan =
    parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{.output_layouts = Replicate{}});

void train(const DryRunCommunicator& world, const Mlp<>& dense) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {world.size() / 8, 8});
  const auto rows = mesh.get<"dp">();
  const auto model = parallelize_module<plan>(dense, mesh.get<"tp">(), {.src_data_rank = no_source});
  const auto y = model(rand<float>({16, 256}));
  backward(mean(y * y));
  settle_gradients(parameters(model));
  for_each_parameter(model, [&](std::string_view, const auto& parameter) {
    auto gradient = parameter.grad();
    const std::span<float> values(gradient.data(), static_cast<std::size_t>(gradient.size()));
    rows.communicator<"dp">().all_reduce(values, values, ReduceOp::avg);
  });
  optim::SGD(parameters(model), {.lr = 0.25}).step();
}

std::string training_table() {
  const Mlp<> dense = mlp(256, 1024, 256);
  std::string s = "| ranks | tp: calls | messages | bytes | ms | dp: calls | messages | bytes | ms |\n"
                  "|---|---|---|---|---|---|---|---|---|\n";
  for (const Grid& grid : grids) {
    const DryRunCommunicator world(0, static_cast<int>(grid.ranks()));
    train(world, dense);
    s += "| " + std::to_string(grid.ranks()) + " |";
    for (const char* axis : {"tp", "dp"}) {
      const DryRunRow row = world.ledger().axis(axis);
      s += " " + std::to_string(row.calls) + " | " + std::to_string(row.messages) + " | " + std::to_string(row.bytes) +
           " | " + decimals(row.seconds * 1e3) + " |";
    }
    s += "\n";
  }
  return s;
}

// The text with what stands between the two marks of this name replaced.
std::string with_part(const std::string& text, const std::string& name, const std::string& part) {
  const std::string begin = "<!-- " + name + ": generated -->\n";
  const std::string end = "<!-- " + name + ": end -->\n";
  const std::size_t from = text.find(begin);
  const std::size_t to = text.find(end);
  REQUIRE(from != std::string::npos);
  REQUIRE(to != std::string::npos);
  return text.substr(0, from + begin.size()) + part + text.substr(to);
}

// What rank `self` of the grid counts when it runs, a float each.
template <class From0, class From1, class To0, class To1>
DryRunRow counted(const Grid& grid, std::int64_t self) {
  // All groups are priced alike, as in the tables.
  const DryRunCommunicator world(static_cast<int>(self), static_cast<int>(grid.ranks()), {.within_node = CostModel{}});
  const auto mesh = init_device_mesh<"a", "b">(world, {grid.a, grid.b});
  (void)redistribute<To0, To1>(zeros<float, From0, From1>(mesh, {1000 * grid.a, 1000 * grid.b}));
  return world.ledger().total();
}

}  // namespace

TEST_CASE("docs/growth.md holds what the planner foresees and what a dry run counts") {
  const std::string path = std::string(SHARDWISE_TEST_DATA) + "/../../docs/growth.md";
  std::stringstream written;
  written << std::ifstream(path).rdbuf();
  std::string now = with_part(written.str(), "transitions", transition_tables());
  now = with_part(now, "switch", switch_table());
  now = with_part(now, "training", training_table());
  if (std::getenv("SHARDWISE_WRITE_TABLE") != nullptr) std::ofstream(path) << now;
  INFO("run scripts/growth.sh and look at what changed");
  CHECK(written.str() == now);
}

TEST_CASE("where sizes divide, one exchange receives the bytes and messages of the closed forms") {
  for (const Grid& grid : {Grid{2, 4}, Grid{8, 8}, Grid{1000, 1000}}) {
    const std::int64_t ranks = grid.ranks();
    const std::int64_t whole = 4 * 1000 * grid.a * 1000 * grid.b;
    std::int64_t rounds = 0;
    while ((std::int64_t{1} << rounds) < ranks) ++rounds;
    const auto expect = [&](int t, std::int64_t bytes, std::int64_t messages) {
      const RedistributePlan once = in_one_exchange(transitions[t], grid, 1000);
      INFO(std::string(transitions[t].name), " on ", ranks);
      CHECK(4 * once.elements() == bytes);
      CHECK(once.messages() == messages);
    };
    expect(0, whole / ranks * (ranks - 1), rounds);
    expect(1, 2 * (whole / ranks) * (ranks - 1), 2 * rounds);
    expect(2, whole / ranks * (ranks - 1), rounds);
    expect(3, whole / ranks / ranks * (ranks - 1), ranks - 1);
    expect(5, whole / grid.b / grid.b * (grid.b - 1), grid.b - 1);
  }
}

TEST_CASE("the busiest rank of a dry run counts what the planner foresees") {
  for (const Grid& grid : grids) {
    const auto compare = [&](const Transition& t, auto&& run) {
      const RedistributePlan foreseen = planned(t, grid, 1000, {});
      DryRunRow most;
      for (const std::int64_t self : {std::int64_t{0}, grid.b - 1, grid.ranks() - 1}) {
        const DryRunRow row = run(self);
        CHECK(row.calls == foreseen.collectives());
        most.messages = std::max(most.messages, row.messages);
        most.bytes = std::max(most.bytes, row.bytes);
        most.seconds = std::max(most.seconds, row.seconds);
      }
      INFO(std::string(t.name), " on ", grid.ranks());
      CHECK(most.messages <= foreseen.messages());
      CHECK(most.bytes <= 4 * foreseen.elements());
      // Steps have busiest ranks of their own; no rank is the busiest in all of them where sizes do not divide.
      CHECK(most.messages >= foreseen.messages() * 96 / 100);
      CHECK(most.bytes >= 4 * foreseen.elements() * 96 / 100);
      CHECK(most.seconds == doctest::Approx(foreseen.seconds).epsilon(0.04));
    };
    compare(transitions[3],
            [&](std::int64_t self) { return counted<Shard<0>, Shard<0>, Shard<1>, Shard<1>>(grid, self); });
    compare(transitions[4],
            [&](std::int64_t self) { return counted<Shard<0>, Shard<1>, Shard<1>, Shard<0>>(grid, self); });
  }
}
