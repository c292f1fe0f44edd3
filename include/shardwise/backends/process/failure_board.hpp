// FailureBoard: where a failure that one part of a process finds is told, and which came first. Layer: backends/process.
#pragma once

#include <shardwise/comm/failure.hpp>

namespace shardwise::detail {

// The first failure of the world, as this process knows it.
class FailureBoard {
 public:
  virtual ~FailureBoard() = default;
  virtual bool failed() const = 0;
  // Tells all ranks, unless another failure came first.
  virtual void fail(const Failure& failure) = 0;
  // The first.
  virtual Failure failure() = 0;
  // The connection to `peer` (of the world; -1: this rank's own are closed) ended: waits shortly for the failure, found elsewhere,
  // that this is a consequence of, or for the word that the peer has left in peace, which then is the failure. True if there is one.
  virtual bool await_cause(int peer) = 0;
};

}  // namespace shardwise::detail
