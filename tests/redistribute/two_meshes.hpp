// Two meshes of one world as the oracle of moves between them sees them: what a rank holds, must get, and gets from others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <shardwise/mesh/device_mesh.hpp>

#include "redistribute/oracle.hpp"
#include "support/random.hpp"

namespace test {

using shardwise::DeviceMesh;
using shardwise::init_device_mesh;
using shardwise::Name;

// A mesh as the oracle sees it.
struct Plan {
  Index shape;
  std::vector<int> ranks;
  PlacementVector placements;

  int find(int rank) const {
    const auto at = std::find(ranks.begin(), ranks.end(), rank);
    return at == ranks.end() ? -1 : static_cast<int>(at - ranks.begin());
  }
  Index coordinate(int position) const {
    Index c(shape.size());
    std::int64_t rest = position;
    for (std::size_t a = shape.size(); a-- > 0; rest /= shape[a]) c[a] = rest % shape[a];
    return c;
  }
  std::vector<Index> lists(int rank, const Index& global) const {
    if (find(rank) < 0) return {};
    return held(placements, shape, coordinate(find(rank)), global);
  }
};

inline bool holds(const std::vector<Index>& lists, const Index& index) {
  for (std::size_t d = 0; d < index.size(); ++d)
    if (std::find(lists[d].begin(), lists[d].end(), index[d]) == lists[d].end()) return false;
  return true;
}

inline std::string text(const Plan& plan) {
  std::string s = text(plan.placements) + text(plan.shape) + " of";
  for (const int r : plan.ranks) s += " " + std::to_string(r);
  return s;
}

struct Expected {
  std::vector<double> values;
  std::int64_t received = 0;  // elements and terms that the rank does not have itself
};

inline Expected expected_on(int rank, const Plan& from, const Plan& to, const Index& global, std::int64_t salt) {
  Expected e;
  if (to.find(rank) < 0) return e;
  const Case c{from.shape, global, from.placements, from.placements, salt};
  const bool member = from.find(rank) >= 0;
  const std::vector<Index> own = from.lists(rank, global);
  std::int64_t terms = 1;
  double divisor = 1;
  for (std::size_t a = 0; a < from.shape.size(); ++a)
    if (from.placements[a].is_partial()) {
      terms *= from.shape[a];
      if (from.placements[a].op == ReduceOp::avg) divisor *= static_cast<double>(from.shape[a]);
    }
  for_each_index(to.lists(rank, global), [&](const Index& index) {
    double value = 0;
    for (std::int64_t t = 0; t < terms; ++t) {
      Index at(from.shape.size(), 0);
      std::int64_t rest = t;
      for (std::size_t a = at.size(); a-- > 0;)
        if (from.placements[a].is_partial()) {
          at[a] = rest % from.shape[a];
          rest /= from.shape[a];
        }
      value += term(c, index, at);
    }
    e.values.push_back(value / divisor);
    e.received += terms - (member && holds(own, index) ? 1 : 0);
  });
  return e;
}

inline Plan random_plan(Random& random, int world, std::size_t axes, std::int64_t rank, bool source) {
  Plan plan;
  for (std::size_t a = 0; a < axes; ++a) plan.shape.push_back(1 + random.below(3));
  while (plan.shape[0] * (axes > 1 ? plan.shape[1] : 1) > world)
    --*std::max_element(plan.shape.begin(), plan.shape.end());
  std::vector<int> all(static_cast<std::size_t>(world));
  std::iota(all.begin(), all.end(), 0);
  for (std::size_t i = all.size(); i > 1; --i)
    std::swap(all[i - 1], all[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  std::int64_t size = 1;
  for (const std::int64_t n : plan.shape) size *= n;
  plan.ranks.assign(all.begin(), all.begin() + size);
  for (std::size_t a = 0; a < axes; ++a) {
    const int d = rank > 0 ? static_cast<int>(random.below(rank)) : 0;
    const std::int64_t kind = rank == 0 ? 0 : random.below(5);
    PlacementValue p = shardwise::detail::replicate_value();
    if (kind == 1 || kind == 2) p = shardwise::detail::shard_value(d);
    if (kind == 3) p = shardwise::detail::block_cyclic_value(d, 1 + random.below(3));
    if (kind == 4) p = shardwise::detail::strided_value(d, 1 + random.below(3));
    if (source && random.below(5) == 0)
      p = shardwise::detail::partial_value(random.below(2) == 0 ? ReduceOp::sum : ReduceOp::avg);
    plan.placements.push_back(p);
  }
  return plan;
}

template <Name Axis, class Comm>
auto make(const Comm& world, const Plan& p) {
  return init_device_mesh<Axis>(world, {p.shape[0]}, {.ranks = p.ranks});
}
template <Name First, Name Second, class Comm>
auto make(const Comm& world, const Plan& p) {
  return init_device_mesh<First, Second>(world, {p.shape[0], p.shape[1]}, {.ranks = p.ranks});
}

}  // namespace test
