// Failure: what went wrong first in a world, and the sentences that say so on every rank. Layer: comm.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include <shardwise/base/error.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>

namespace shardwise::detail {

// Who calls: a rank with the label and the deadline of its handle.
struct Caller {
  int rank;
  Name axis;
  std::chrono::milliseconds deadline;
  const char* operation = nullptr;  // where it is no call of a communicator: what messages call it
};

enum class FailureKind : std::uint8_t { none, peer, timeout, mismatch };

// A `peer` message is a clause ("rank 1 failed: out of cheese") that each rank puts after its own operation; the others are
// sentences, and the same on all ranks.
struct Failure {
  FailureKind kind = FailureKind::none;
  std::string message;
  int found_by = -1;  // world rank
};

// Told of the first failure, on the thread that learns of it.
class FailureListener {
 public:
  virtual ~FailureListener() = default;
  virtual void found(const Failure& failure) noexcept = 0;
};

// (What follows are templates, so that a unit that runs no ranks compiles no texts.)

template <class = void>
[[noreturn, gnu::noinline, gnu::cold]] void throw_failure(const Failure& failure, const std::string& operation) {
  if (failure.kind == FailureKind::timeout) throw TimeoutError(failure.message);
  if (failure.kind == FailureKind::mismatch) throw MismatchError(failure.message);
  throw PeerFailedError(text("shardwise::", operation, ": ", failure.message));
}

template <class = void>
[[gnu::cold]] std::string call_text(const CallInfo& call) {
  return call.collective == Collective::split ? "split" : describe(call);  // a split has no elements
}

template <class = void>
[[gnu::cold]] std::string operation_text(const CallInfo& call, const Name& axis) {
  const std::string name = call_text(call);
  return axis.empty() ? name : text(name, " on axis '", axis.view(), "'");
}

[[gnu::cold]] inline std::string operation_text(const CallInfo& call, const Caller& caller) {
  return caller.operation != nullptr ? caller.operation : operation_text(call, caller.axis);
}

// "rank 2", or "rank 2 (world rank 5)" in a part of the world.
template <class = void>
[[gnu::cold]] std::string rank_text(int rank, int world_rank, bool whole_world) {
  if (world_rank == rank && whole_world) return text("rank ", rank);
  return text("rank ", rank, " (world rank ", world_rank, ")");
}

// `me` and `missing` are texts of ranks.
template <class = void>
[[gnu::cold]] std::string timeout_text(const Caller& caller, const CallInfo& call, std::string_view me,
                                       std::string_view missing) {
  return text("shardwise::", operation_text(call, caller), ": deadline of ", caller.deadline.count(), " ms passed on ",
              me, "; missing: ", missing);
}

// `a` and `b` are texts of ranks.
template <class = void>
[[gnu::cold]] std::string mismatch_text(const Name& axis, std::string_view a, const CallInfo& call_a,
                                        std::string_view b, const CallInfo& call_b) {
  const std::string text_a = call_text(call_a), text_b = call_text(call_b);
  return text("shardwise: ranks call different operations", axis.empty() ? "" : " on axis '", axis.view(),
              axis.empty() ? ": " : "': ", a, " calls ", text_a, ", ", b, " calls ", text_b,
              text_a == text_b ? ", with other counts or placements" : "");
}

}  // namespace shardwise::detail
