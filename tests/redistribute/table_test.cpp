// Every move from {R, S0, S1, P}^m to {R, S0, S1}^m: what the plan takes, against a lower bound found by brute force and against
// PyTorch's planner, whose model is checked with the counts that PyTorch gave. docs/redistribution_table.md is this table:
// scripts/redistribution_table.sh writes it anew.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include <shardwise/placement/planner.hpp>

#include "redistribute/oracle.hpp"
#include "support/tuples.hpp"
#include "support/json.hpp"

using namespace shardwise;
using namespace test;

namespace {

const PlacementValue R = detail::replicate_value();
const PlacementValue S0 = detail::shard_value(0);
const PlacementValue S1 = detail::shard_value(1);
const PlacementValue P = detail::partial_value();

// ---- the lower bound ------------------------------------------------------------------------------------------------

// Elements that all ranks together must receive, found element by element. Ranks that differ on an axis that stays Replicate
// are asked apart: neither helps the other.
//
// One term: every rank that wants the element and does not hold it receives it once. Several: some rank knows the sum
// first. By then every term but its own has left a rank that held it, and afterwards every other rank that wants the sum
// receives once more.
std::int64_t lower_bound(const Index& mesh, const Index& global, const PlacementVector& from,
                         const PlacementVector& to) {
  std::int64_t terms = 1;
  for (std::size_t a = 0; a < mesh.size(); ++a)
    if (from[a].is_partial()) terms *= mesh[a];
  struct Where {
    bool held = false;
    bool wanted = false;
  };
  const auto elements = static_cast<std::size_t>(global[0] * global[1]);
  std::vector<std::pair<Index, std::vector<Where>>> ranks;
  for (const Index& c : coordinates(mesh)) {
    std::vector<Where> where(elements);
    const auto at = [&](const Index& i) -> Where& { return where[static_cast<std::size_t>(i[0] * global[1] + i[1])]; };
    for_each_index(held(from, mesh, c, global), [&](const Index& i) { at(i).held = true; });
    for_each_index(held(to, mesh, c, global), [&](const Index& i) { at(i).wanted = true; });
    Index apart;
    for (std::size_t a = 0; a < mesh.size(); ++a)
      apart.push_back(from[a].is_replicate() && to[a].is_replicate() ? c[a] : 0);
    ranks.emplace_back(apart, where);
  }
  std::int64_t total = 0;
  std::vector<Index> seen;
  for (const auto& [apart, unused] : ranks) {
    if (std::find(seen.begin(), seen.end(), apart) != seen.end()) continue;
    seen.push_back(apart);
    for (std::size_t e = 0; e < elements; ++e) {
      std::int64_t wanted = 0;
      std::int64_t both = 0;
      for (const auto& [other, where] : ranks) {
        if (other != apart) continue;
        wanted += where[e].wanted ? 1 : 0;
        both += where[e].wanted && where[e].held ? 1 : 0;
      }
      if (wanted > 0) total += terms == 1 ? wanted - both : terms - 1 + wanted - (both > 0 ? 1 : 0);
    }
  }
  return total;
}

// ---- PyTorch --------------------------------------------------------------------------------------------------------

struct Pytorch {
  int collectives = 0;
  double elements = 0;  // received by a rank, in tensors; sizes that divide
};

// One axis after the other: from the innermost to the outermost what nested shards are in the way of, then the rest from the
// outermost on (torch/distributed/tensor/_redistribute.py). From one shard to another it counts the all_to_all of an
// accelerator; on CPU it gathers, which is as many collectives and more elements.
Pytorch pytorch(const Index& mesh, const PlacementVector& from, const PlacementVector& to) {
  Pytorch result;
  PlacementVector now = from;
  const auto move = [&](std::size_t a, const PlacementValue& target) {
    const auto k = static_cast<double>(mesh[a]);
    double local = 1;
    for (std::size_t b = 0; b < mesh.size(); ++b)
      if (now[b].is_shard()) local /= static_cast<double>(mesh[b]);
    if (mesh[a] > 1 && !now[a].is_replicate()) {
      ++result.collectives;
      if (now[a].is_shard())
        result.elements += target.is_shard() ? local * (k - 1) / k : local * (k - 1);
      else
        result.elements += (target.is_shard() ? 1 : 2) * local * (k - 1) / k;
    }
    now[a] = target;
  };
  std::int64_t shards = 1;
  for (std::size_t a = 0; a < mesh.size(); ++a)
    if (from[a].is_shard()) shards *= mesh[a];
  if (shards > 1 && mesh.size() > 1)
    for (std::size_t a = mesh.size(); a-- > 0;) {
      PlacementValue target = to[a];
      if (target.is_shard())
        for (std::size_t b = 0; b < a; ++b)
          if (now[b].is_shard(to[a].dim) != to[b].is_shard(to[a].dim)) target = R;
      if (now[a] != target) move(a, target);
    }
  for (std::size_t a = 0; a < mesh.size(); ++a)
    if (now[a] != to[a]) move(a, to[a]);
  return result;
}

// ---- the library ----------------------------------------------------------------------------------------------------

struct Ours {
  RedistributePlan plan;  // where ranks read each other's memory
  RedistributePlan over_network;
  std::int64_t elements = 0;  // of all ranks
};
Ours ours(const Index& mesh, const Index& global, const PlacementVector& from, const PlacementVector& to) {
  Ours result;
  const detail::Extents shape = extents_of(global);
  const detail::MoveView view{from.data(), to.data(), mesh.data(), static_cast<int>(mesh.size())};
  result.plan = detail::plan(view, &shape, {.cost = shared_memory_cost});
  result.over_network = detail::plan(view, &shape, {});
  for (const Index& c : coordinates(mesh)) result.elements += detail::MovePlan(view, c.data(), shape).received();
  return result;
}

// ---- the table ------------------------------------------------------------------------------------------------------

std::string short_name(const PlacementVector& list) {
  std::string s;
  for (const PlacementValue& p : list) s += p.is_replicate() ? "R" : p.is_partial() ? "P" : "S" + std::to_string(p.dim);
  return s;
}

// 0.375 as ".375", 1.5 as "1.5".
std::string short_number(double x) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.4f", x);
  std::string s = digits;
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s.size() > 1 && s[0] == '0' ? s.substr(1) : s;
}

std::string cell(const Ours& mine, double tensors, bool at_bound, const Pytorch& theirs) {
  const char* letters[] = {"", "g", "s", "r", "x"};
  if (mine.plan.collectives() == 0 && theirs.collectives == 0) return mine.plan.size() == 0 ? "-" : "local";
  std::string s = letters[static_cast<int>(mine.plan[0].collective)] + short_number(tensors) + (at_bound ? "" : "*");
  if (mine.plan.collectives() == 0) s = "local";
  if (theirs.collectives == mine.plan.collectives() && std::abs(theirs.elements - tensors) < 1e-9) return s;
  return s + " (" + std::to_string(theirs.collectives) + ": " + short_number(theirs.elements) + ")";
}

struct Summary {
  int cells = 0, fewer_collectives = 0, fewer_elements = 0, above_bound = 0;
};

std::string table(const Index& mesh, Summary& summary) {
  const Index global{24, 24};  // divides by all ranks of these meshes, also when both dimensions are
  const auto sources = lists({R, S0, S1, P}, mesh.size());
  const auto targets = lists({R, S0, S1}, mesh.size());
  std::string s = "| " + text(mesh) + " |";
  for (const PlacementVector& to : targets) s += " " + short_name(to) + " |";
  s += "\n|";
  for (std::size_t i = 0; i <= targets.size(); ++i) s += "---|";
  s += "\n";
  std::int64_t ranks = 1;
  for (const std::int64_t k : mesh) ranks *= k;
  for (const PlacementVector& from : sources) {
    s += "| " + short_name(from) + " |";
    for (const PlacementVector& to : targets) {
      const Ours mine = ours(mesh, global, from, to);
      const std::int64_t bound = lower_bound(mesh, global, from, to);
      const Pytorch theirs = pytorch(mesh, from, to);
      const auto tensors = static_cast<double>(mine.elements) / static_cast<double>(ranks * 24 * 24);
      INFO(text(mesh), " ", text(from), " -> ", text(to));
      CHECK(mine.plan.collectives() <= 1);
      CHECK(mine.plan.collectives() <= theirs.collectives);
      CHECK(mine.over_network.collectives() <= theirs.collectives);
      CHECK(tensors <= theirs.elements + 1e-9);
      CHECK(mine.elements == bound);
      ++summary.cells;
      summary.fewer_collectives += mine.plan.collectives() < theirs.collectives ? 1 : 0;
      summary.fewer_elements += tensors < theirs.elements - 1e-9 ? 1 : 0;
      summary.above_bound += mine.elements > bound ? 1 : 0;
      s += " " + cell(mine, tensors, mine.elements == bound, theirs) + " |";
    }
    s += "\n";
  }
  return s + "\n";
}

const std::vector<Index> meshes{{4}, {2, 2}, {4, 2}, {4, 1}, {2, 3}, {2, 2, 2}};

std::string document() {
  Summary summary;
  std::string tables;
  for (const Index& mesh : meshes) tables += table(mesh, summary);
  std::string s =
      "# Every redistribution on small meshes\n\n"
      "Generated by `scripts/redistribution_table.sh`, kept true by `tests/redistribute/table_test.cpp`.\n"
      "[redistribution.md](redistribution.md) says how the plans come about. These are the ones where ranks read each other's\n"
      "memory; over a network the cost model may split an exchange, into no more collectives than PyTorch's on these meshes.\n\n"
      "A row is what is, a column what is wanted, one placement per mesh axis. In a cell: the collective (`g` all_gather, `s`\n"
      "reduce_scatter, `r` all_reduce, `x` all_to_all) and what a rank receives, the mean over the ranks in sizes of the whole\n"
      "tensor; in brackets, where it differs, how many collectives PyTorch issues and what a rank receives in them. `local`:\n"
      "nothing is communicated. `-`: nothing moves. `*`: more than the lower bound.\n\n"
      "The bound is found element by element by brute force: what no rank needs twice, and of a sum every term but one and every\n"
      "result but one. Ranks along an axis that stays replicated are counted apart. PyTorch: its planner without flattened meshes\n"
      "and with an accelerator's all_to_all (on CPU it gathers instead, which moves more), checked against the counts that\n"
      "PyTorch 2.12.1 gave. Sizes divide; the tests do the same with sizes that do not.\n\n";
  s += std::to_string(summary.cells) + " moves: " + std::to_string(summary.fewer_collectives) +
       " take fewer collectives than PyTorch's plan, none takes more; " + std::to_string(summary.fewer_elements) +
       " receive less, none more; " + std::to_string(summary.above_bound) + " are above the bound.\n\n";
  return s + tables;
}

}  // namespace

TEST_CASE("the model of PyTorch's planner has the counts that PyTorch gave") {
  const Json data = Json::load("redistribute.json");
  const auto parse = [](const Json& list) {
    PlacementVector placements;
    for (const Json& p : list.items())
      placements.push_back(p.string() == "R" ? R : p.string()[0] == 'S' ? detail::shard_value(p.string()[2] - '0') : P);
    return placements;
  };
  int compared = 0;
  for (const Json& c : data["cases"].items()) {
    if (c["api"].string() != "public") continue;  // to Partial: PyTorch's planner is asked for none
    int counted = 0;
    for (const Json& count : c["pytorch_collectives"].items()) counted += static_cast<int>(count.integer());
    INFO("case ", c["id"].integer());
    CHECK(pytorch(c["mesh_shape"].numbers<std::int64_t>(), parse(c["from"]), parse(c["to"])).collectives == counted);
    ++compared;
  }
  CHECK(compared == 85);
}

TEST_CASE("RD-16 RD-25 RD-53: never more collectives than PyTorch counts in its tests") {
  struct Row {
    Index mesh;
    PlacementVector from, to;
    int pytorch;  // with the flattened meshes that the tests make
  };
  const PlacementValue S2 = detail::shard_value(2);
  const Row rows[] = {
      {{2, 2}, {S0, S1}, {S0, S0}, 1},
      {{2, 2}, {S0, S1}, {S1, S0}, 2},
      {{2, 2}, {S0, S0}, {S1, S1}, 2},
      {{2, 2}, {S0, S2}, {S1, S0}, 2},
      {{2, 2}, {S1, S1}, {S1, S2}, 1},
      {{2, 2, 2}, {S0, S0, S0}, {S1, S1, S1}, 3},
      {{2, 2, 2}, {S0, S1, S0}, {S1, S0, S0}, 3},
      {{2, 2, 2}, {S0, S1, S2}, {S2, S1, S0}, 2},
      {{2, 2, 2}, {S1, S0, S0}, {R, S0, S0}, 1},
      {{2, 2, 2}, {S1, R, S0}, {R, S0, S0}, 2},
      {{2, 2, 2}, {S0, S0, S1}, {S0, S1, S2}, 2},
      {{4, 2}, {P, P}, {R, R}, 1},
      {{4, 2}, {P, P}, {S0, S0}, 1},
      {{4, 2}, {P, P}, {S0, S1}, 2},
      {{4, 2}, {S0, S0}, {R, R}, 1},
      {{4, 2}, {S0, S1}, {R, R}, 2},
      {{2, 2, 2}, {P, P, S0}, {S0, S0, S0}, 3},
      {{2, 2, 2}, {P, P, P}, {R, R, R}, 1},
      {{2, 2, 2}, {P, S0, P}, {R, R, R}, 3},
      {{2, 2, 2}, {P, R, P}, {R, R, R}, 1},
      {{2, 2, 2}, {P, P, R}, {S0, S1, R}, 2},
      {{2, 2, 2}, {P, P, P}, {S0, S0, S1}, 2},
  };
  for (const Row& row : rows) {
    const detail::MoveView view{row.from.data(), row.to.data(), row.mesh.data(), static_cast<int>(row.mesh.size())};
    const detail::Extents shape = extents_of({16, 16, 16});
    INFO(text(row.from), " -> ", text(row.to));
    CHECK(detail::plan(view, &shape, {}).collectives() <= row.pytorch);
    CHECK(detail::plan(view, &shape, {.cost = shared_memory_cost}).collectives() == 1);
  }
}

TEST_CASE(
    "RD-24 UT-2 UT-3 UT-9: sizes that do not divide: one collective at most, and never more than the lower bound") {
  for (const Index& mesh : meshes)
    for (const Index& global : {Index{7, 5}, Index{3, 2}, Index{1, 9}, Index{18, 2}, Index{13, 2}, Index{0, 4}}) {
      for (const PlacementVector& from : lists({R, S0, S1, P}, mesh.size()))
        for (const PlacementVector& to : lists({R, S0, S1}, mesh.size())) {
          const Ours mine = ours(mesh, global, from, to);
          const int allowed = pytorch(mesh, from, to).collectives;
          const bool fits = mine.plan.collectives() <= 1 && mine.plan.collectives() <= allowed &&
                            mine.over_network.collectives() <= allowed &&
                            mine.elements == lower_bound(mesh, global, from, to);
          if (fits) continue;
          INFO(text(global), " on ", text(mesh), " ", text(from), " -> ", text(to), ": ", mine.elements,
               " elements, bound ", lower_bound(mesh, global, from, to));
          CHECK(fits);
        }
    }
}

TEST_CASE("docs/redistribution_table.md is what the planner does") {
  const std::string path = std::string(SHARDWISE_TEST_DATA) + "/../../docs/redistribution_table.md";
  const std::string now = document();
  if (std::getenv("SHARDWISE_WRITE_TABLE") != nullptr) std::ofstream(path) << now;
  std::ifstream file(path);
  std::stringstream written;
  written << file.rdbuf();
  INFO("run scripts/redistribution_table.sh and look at what changed");
  CHECK(written.str() == now);
}
