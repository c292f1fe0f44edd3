// CallInfo: what a rank says it is doing. Compared across ranks before any data moves, and the words of
// every communication error. Layer: comm.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/text.hpp>

namespace shardwise {

/// Where the buffers of a communicator live.
enum class MemorySpace : std::uint8_t { host, cuda };

/// One collective call of one rank. All but `bytes` and `messages` must agree on all ranks of the communicator.
struct CallInfo {
  Collective collective = Collective::none;
  DType dtype = DType::float32;
  ReduceOp op = ReduceOp::sum;   ///< for reductions
  int root = -1;                 ///< for rooted operations
  detail::Extents shape;         ///< global shape of a tensor, or the count of a raw collective as rank 1
  std::uint64_t layout = 0;      ///< fingerprint of what else must agree (placements, count lists)
  std::int64_t bytes = 0;        ///< received from the others by this rank; may differ; or `part_of_another`
  std::int64_t messages = -1;    ///< in which they come; negative where nobody counts them; may differ

  /// For `bytes`: a meeting within an operation whose other meeting says what is received.
  static constexpr std::int64_t part_of_another = -1;

  friend bool operator==(const CallInfo& a, const CallInfo& b) {
    return a.collective == b.collective && a.dtype == b.dtype && a.op == b.op && a.root == b.root &&
           a.shape == b.shape && a.layout == b.layout;
  }
};

/// "all_reduce of float [12, 10]", for messages.
[[gnu::cold]] inline std::string describe(const CallInfo& call) {
  using detail::text;
  const char* const name = to_string(call.collective);
  if (call.collective == Collective::barrier) return name;
  const bool reduces = call.collective == Collective::all_reduce || call.collective == Collective::reduce_scatter;
  const std::string what = text(name, reduces ? "(" : "", reduces ? to_string(call.op) : "", reduces ? ") of " : " of ",
                                to_string(call.dtype), " ", call.shape);
  return call.root < 0 ? what : text(what, " from rank ", call.root);
}

}  // namespace shardwise
