// CommunicatorHandle: what the handles of all backends have: a rank, with the label and the deadline of its calls. Layer: comm.
#pragma once

#include <chrono>

#include <shardwise/base/name.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise::detail {

// A base of communicators, which are cheap to copy.
template <class Self>
class CommunicatorHandle {
 public:
  int rank() const { return me_.rank; }

  /// The label in errors and traces: a mesh axis.
  Name axis() const { return me_.axis; }
  Self with_axis(Name axis) const {
    Self c = self();
    c.me_.axis = axis;
    return c;
  }

  /// How long a call waits for the other ranks.
  std::chrono::milliseconds deadline() const { return me_.deadline; }
  Self with_deadline(std::chrono::milliseconds deadline) const {
    Self c = self();
    c.me_.deadline = checked_deadline(deadline);
    return c;
  }

 protected:
  CommunicatorHandle(int rank, std::chrono::milliseconds deadline) : me_{rank, Name(), deadline} {}

  // Tells whoever listens.
  void tell(const CallInfo& call) const {
    if (call.collective != Collective::split && call.bytes != CallInfo::part_of_another)
      trace(call.collective, call.dtype, me_.axis.view(), call.bytes);
  }

  Caller me_;

 private:
  const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace shardwise::detail
