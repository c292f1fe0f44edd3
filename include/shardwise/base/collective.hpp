// The closed lists that every layer speaks of: collectives and reduce operations. Layer: base.
#pragma once

#include <cstdint>

namespace shardwise {

/// What a rank takes part in. `none` is local work.
enum class Collective : std::uint8_t {
  none,
  all_gather,
  reduce_scatter,
  all_reduce,
  all_to_all,
  broadcast,
  scatter,
  send,
  recv,
  barrier,
  split,
};
inline constexpr int collective_count = 11;

constexpr const char* to_string(Collective collective) {
  constexpr const char* names[] = {"none",    "all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast",
                                   "scatter", "send",       "recv",           "barrier",    "split"};
  return names[static_cast<int>(collective)];
}

/// How the terms of a `Partial` become its value.
enum class ReduceOp : std::uint8_t { sum, avg, product, max, min };

constexpr const char* to_string(ReduceOp op) {
  constexpr const char* names[] = {"sum", "avg", "product", "max", "min"};
  return names[static_cast<int>(op)];
}

/// The types that `Partial<Op>` names its operation with.
struct Sum {
  static constexpr ReduceOp op = ReduceOp::sum;
};
struct Avg {
  static constexpr ReduceOp op = ReduceOp::avg;
};
struct Product {
  static constexpr ReduceOp op = ReduceOp::product;
};
struct Max {
  static constexpr ReduceOp op = ReduceOp::max;
};
struct Min {
  static constexpr ReduceOp op = ReduceOp::min;
};

template <class T>
concept ReduceOpTag = requires {
  requires T::op == ReduceOp::sum || T::op == ReduceOp::avg || T::op == ReduceOp::product || T::op == ReduceOp::max ||
                   T::op == ReduceOp::min;
};

}  // namespace shardwise
