// The alpha-beta model: what messages cost, so that planner and dry run price alike. Layer: base.
#pragma once

namespace shardwise {

/// A collective costs a fixed time, a message another one, and a byte a third. The defaults are those of a cluster: 20 us for
/// ranks to meet, 5 us a message, 12.5 GB/s (100 Gbit/s) into a rank. All that the library assumes stands in this file.
struct CostModel {
  double seconds_per_message = 5e-6;
  double seconds_per_byte = 8e-11;
  double seconds_per_collective = 2e-5;

  constexpr double seconds(double messages, double bytes) const {
    return messages * seconds_per_message + bytes * seconds_per_byte;
  }
  friend constexpr bool operator==(const CostModel&, const CostModel&) = default;
};

/// Ranks that read each other's memory send no messages: 10 GB/s of copying, and one exchange is never split.
inline constexpr CostModel shared_memory_cost{0, 1e-10, 1e-6};

}  // namespace shardwise
