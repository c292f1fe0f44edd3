// What a communicator checks and reads before a call: sizes, counts, ranks, the default deadline. Hardly any of it depends
// on an element type, so it is compiled once a unit. Layer: comm.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>

namespace shardwise::detail {

// SHARDWISE_TIMEOUT_MS, or five minutes.
inline std::chrono::milliseconds default_deadline() {
  static const std::chrono::milliseconds deadline = [] {
    const char* set = std::getenv("SHARDWISE_TIMEOUT_MS");
    if (set == nullptr || *set == '\0') return std::chrono::milliseconds(5 * 60 * 1000);
    char* end = nullptr;
    const long long value = std::strtoll(set, &end, 10);
    constexpr long long year = 365LL * 24 * 3600 * 1000;
    SHARDWISE_REQUIRE(
        *end == '\0' && value > 0 && value <= year,
        text("shardwise: SHARDWISE_TIMEOUT_MS must be a positive number of milliseconds, at most a year, not '", set,
             "'"));
    return std::chrono::milliseconds(value);
  }();
  return deadline;
}

// A year stands for more: the sum with the clock must not overflow.
inline std::chrono::milliseconds checked_deadline(std::chrono::milliseconds deadline) {
  SHARDWISE_REQUIRE(deadline.count() > 0,
                    text("shardwise::with_deadline: a deadline is positive, not ", deadline.count(), " ms"));
  constexpr std::int64_t year = std::int64_t{365} * 24 * 3600 * 1000;
  return deadline.count() < year ? deadline : std::chrono::milliseconds(year);
}

// For CallInfo::layout: lists of counts that must agree.
inline std::uint64_t fingerprint(std::span<const std::int64_t> counts) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const std::int64_t* const n = counts.data();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    hash = (hash ^ static_cast<std::uint64_t>(n[i])) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  return hash;
}

// The elements before those of `rank`.
inline std::int64_t sum_before(std::span<const std::int64_t> counts, int rank) {
  std::int64_t n = 0;
  for (int r = 0; r < rank; ++r) n += counts[static_cast<std::size_t>(r)];
  return n;
}

[[noreturn, gnu::noinline, gnu::cold]] inline void fail_size(const char* function, const char* what, std::int64_t has,
                                                             std::int64_t needs, int ranks) {
  fail<ShapeError>(
      text("shardwise::", function, ": ", what, " has ", has, " elements, needed are ", needs, " (", ranks, " ranks)"));
}

[[noreturn, gnu::noinline, gnu::cold]] inline void fail_unordered(const char* function, ReduceOp op) {
  fail(text("shardwise::", function, ": complex numbers have no order, so no ", to_string(op)));
}

inline void require_counts(const char* function, std::span<const std::int64_t> counts, int ranks) {
  const auto n = static_cast<std::int64_t>(counts.size());
  if (n != ranks) fail_size(function, "a list of counts", n, ranks, ranks);
  for (const std::int64_t c : counts)
    SHARDWISE_REQUIRE(c >= 0, text("shardwise::", function, ": a count of ", c), ShapeError);
}

inline void require_rank(const char* function, int rank, int ranks) {
  SHARDWISE_REQUIRE(rank >= 0 && rank < ranks, text("shardwise::", function, ": no rank ", rank, " among ", ranks));
}

inline void require_peer(const char* function, int peer, int self, int ranks) {
  require_rank(function, peer, ranks);
  SHARDWISE_REQUIRE(peer != self, text("shardwise::", function, ": rank ", peer, " is its own peer"));
}

// A base of what has collectives: what they make of their arguments.
struct CollectiveArguments {
 protected:
  static std::size_t index(int r) { return static_cast<std::size_t>(r); }
  template <class T>
  static std::int64_t count(std::span<T> s) {
    return static_cast<std::int64_t>(s.size());
  }
  template <class T>
  static void require_reducible(const char* function, ReduceOp op) {
    if (!reducible<T>(op)) [[unlikely]]
      fail_unordered(function, op);
  }
  template <class T>
  static CallInfo call_info(Collective collective, std::int64_t elements, std::int64_t received) {
    CallInfo call;
    call.collective = collective;
    call.dtype = dtype_of<T>;
    call.shape = Extents(Shape<1>{elements});
    call.bytes = received * static_cast<std::int64_t>(sizeof(T));
    return call;
  }
};

}  // namespace shardwise::detail
