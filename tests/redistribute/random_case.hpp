// A random move: shape, placements and the salt of its values, for tests against the oracle.
#pragma once

#include "redistribute/oracle.hpp"
#include "support/random.hpp"

namespace test {

// On a mesh of this shape; `ordered`: of elements that have an order, so that max and min are defined.
inline Case random_case(SplitMix& random, const Index& mesh, bool ordered) {
  Case c;
  c.mesh = mesh;
  const std::int64_t sizes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16};
  const std::int64_t rank = random.below(12) == 0 ? 0 : 1 + random.below(4);
  std::int64_t elements = 1;
  for (std::int64_t d = 0; d < rank; ++d) {
    std::int64_t n = sizes[random.below(12)];
    if (n == 0 && random.below(4) != 0) n = 11;
    if (elements * n > 150) n = 1 + random.below(2);
    elements *= n;
    c.global.push_back(n);
  }
  if (rank == 2 && random.below(300) == 0) c.global = {67, 1 + random.below(150)};  // beyond what is staged
  const bool linear = !ordered || random.below(3) != 0;  // complex numbers have no order
  const ReduceOp others[] = {ReduceOp::max, ReduceOp::min, ReduceOp::product};
  const ReduceOp other = others[random.below(3)];
  const auto plain = [&] {
    return rank > 0 && random.below(3) != 0 ? shardwise::detail::shard_value(static_cast<int>(random.below(rank)))
                                            : shardwise::detail::replicate_value();
  };
  for (std::size_t a = 0; a < mesh.size(); ++a) {
    PlacementValue from = plain();
    if (random.below(3) == 0)
      from = shardwise::detail::partial_value(!linear ? other : random.below(3) == 0 ? ReduceOp::avg : ReduceOp::sum);
    PlacementValue to = plain();
    const std::int64_t what = random.below(6);
    if (what == 0) to = from;
    if (what == 1 && linear && !from.is_partial()) to = shardwise::detail::partial_value();
    c.from.push_back(from);
    c.to.push_back(to);
  }
  c.salt = random.below(1000);
  return c;
}

}  // namespace test
