// Every redistribution of redistribute.json: PyTorch's data before and after, with at most its collectives.
#include <doctest/doctest.h>

#include <shardwise/backends/thread.hpp>
#include <shardwise/redistribute/redistribute.hpp>

#include "redistribute/oracle.hpp"
#include "support/json.hpp"

using namespace shardwise;
using namespace test;

namespace {

PlacementValue parse(const std::string& text) {
  if (text == "R") return detail::replicate_value();
  if (text[0] == 'S') return detail::shard_value(text[2] - '0');
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::product, ReduceOp::max, ReduceOp::min})
    if (text == std::string("P(") + to_string(op) + ")") return detail::partial_value(op);
  throw std::runtime_error("unknown placement " + text);
}
PlacementVector parse(const Json& list) {
  PlacementVector placements;
  for (const Json& p : list.items()) placements.push_back(parse(p.string()));
  return placements;
}
bool reachable(const PlacementVector& from, const PlacementVector& to) {
  for (std::size_t a = 0; a < from.size(); ++a)
    if (!detail::can_redistribute(from[a], to[a])) return false;
  return true;
}

template <Name... Axes>
void run_case(const Json& c) {
  constexpr std::size_t n = sizeof...(Axes);
  const Index shape = c["mesh_shape"].numbers<std::int64_t>();
  const Index global = c["shape"].numbers<std::int64_t>();
  const PlacementVector from = parse(c["from"]);
  const PlacementVector to = parse(c["to"]);
  int allowed = 0;
  for (const Json& count : c["pytorch_collectives"].items()) allowed += static_cast<int>(count.integer());
  std::int64_t sizes[n];
  int ranks = 1;
  for (std::size_t a = 0; a < n; ++a) ranks *= static_cast<int>(sizes[a] = shape[a]);
  {
    const auto before = list_of<n>(from), after = list_of<n>(to);
    const detail::Extents extents = extents_of(global);
    INFO("case ", c["id"].integer());
    CHECK(detail::plan({before.data(), after.data(), shape.data(), static_cast<int>(n)}, &extents, {}).collectives() <=
          allowed);
  }
  Failures failures;
  run_ranks(ranks, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<Axes...>(world, sizes);
    const auto me = static_cast<std::size_t>(world.rank());
    const auto before = c["before"][me]["data"].numbers<float>();
    std::vector<float> after;
    {
      const Counter counter;
      after = moved(mesh, from, to, global, before);
      if (counter.total > allowed) failures.add("more collectives than PyTorch");
    }
    if (c["api"].string() == "public") {
      if (after != c["after"][me]["data"].numbers<float>()) failures.add("rank " + std::to_string(world.rank()));
      return;
    }
    // A term of a sum is free: PyTorch divides, the library leaves the value on one rank. The sum is what counts.
    const PlacementVector whole(n, detail::replicate_value());
    if (moved(mesh, to, whole, global, after) != c["global"].numbers<float>()) failures.add("the sum differs");
  });
  INFO("case ", c["id"].integer(), " ", failures.first());
  CHECK(failures.count() == 0);
}

}  // namespace

TEST_CASE("PyTorch's redistributions, element by element") {
  const Json data = Json::load("redistribute.json");
  CHECK(data["cases"].size() == 94);
  for (const Json& c : data["cases"].items()) {
    if (!reachable(parse(c["from"]), parse(c["to"]))) {  // Replicate to Partial of an average, a maximum, a minimum
      CHECK(c["api"].string() == "internal");
      continue;
    }
    if (c["mesh_shape"].size() == 1) run_case<"a">(c);
    if (c["mesh_shape"].size() == 2) run_case<"a", "b">(c);
    if (c["mesh_shape"].size() == 3) run_case<"a", "b", "c">(c);
  }
}

TEST_CASE("what PyTorch refuses is a compile error, a pending sum aside") {
  const Json data = Json::load("redistribute.json");
  int offered = 0;
  for (const Json& c : data["refused"].items()) {
    const PlacementVector from = parse(c["from"]);
    const PlacementVector to = parse(c["to"]);
    const int rank = static_cast<int>(c["shape"].size());
    bool refused = from.size() != to.size();                            // [P1]
    for (const PlacementValue& p : to) refused = refused || (p.is_shard() && p.dim >= rank);  // [P2]
    if (!refused) refused = !reachable(from, to);                       // [P3]
    if (!refused && from.size() == 2) refused = !detail::partials_mix(list_of<2>(from));      // [P4]
    if (refused) continue;
    // A value may become a term of a sum: rank 0 keeps, or the shard is padded with zeros.
    for (std::size_t a = 0; a < from.size(); ++a)
      CHECK((!to[a].is_partial() || from[a] == to[a] || (!from[a].is_partial() && to[a].op == ReduceOp::sum)));
    ++offered;
  }
  CHECK(offered == 8);
}
