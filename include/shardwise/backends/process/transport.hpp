// Transport: moves bytes between ranks of a world that do not share memory; Gloo and MPI implement it. Layer: backends/process.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/failure_board.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/message_channel.hpp>

namespace shardwise::detail {

// What stopped an exchange, in ranks of the world; MessageGroup makes it a sentence about the operation.
class TransportError : public CommError {
 public:
  enum Kind {
    closed,  // by this process' monitor, or by an earlier error
    lost,  // the connection to peers[0]
    late,  // peers did not come within the deadline
    mismatch,  // peers[0] sent `theirs`, where `expected_bytes` of payload were expected
  };

  TransportError(Kind k, std::vector<int> who, const std::string& text)
      : CommError(text), kind(k), peers(std::move(who)) {}
  TransportError(int peer, const MessageHeader& header, std::uint64_t expected)
      : CommError("shardwise: ranks call different operations"), kind(mismatch), peers{peer}, theirs(header),
        expected_bytes(expected) {}

  Kind kind;
  std::vector<int> peers;
  MessageHeader theirs;
  std::uint64_t expected_bytes = 0;
};

class WaitNotes;

// One thread of the process at a time may be in exchange().
class Transport {
 public:
  using Clock = std::chrono::steady_clock;

  virtual ~Transport() = default;
  // All sends and receives of one step together; cannot deadlock, whatever their sizes. `header.bytes` is filled in for each
  // message. Payload reaches the memory of `in`, or `unpack`, only after the headers agreed, and none does after a throw. The first
  // error closes the transport. Throws: TransportError.
  virtual void exchange(const MessageHeader& header, std::span<const Outgoing> out, std::span<const Incoming> in,
                        Clock::time_point until, PackFunction pack, UnpackFunction unpack = {}) = 0;
  // From any thread: whoever waits in an exchange, here or on a peer, stops waiting for this rank.
  virtual void close() noexcept = 0;
  // From any thread: `peer` ended normally, and sends nothing more. For those that would not see it from its connection.
  virtual void departed(int /*peer*/) noexcept {}
  // Throws where a rank that this one does not wait for has sent what shows that it does something else. For who waits elsewhere.
  virtual void look(const MessageHeader& /*mine*/) {}
  // Does a piece of the exchange that is under way here, if one is ready: true. For who waits elsewhere.
  virtual bool work() { return false; }
  // Looks and works there too while it waits. It lives as long.
  virtual void look_also(Transport& /*other*/) {}
  // Reads there, in a long wait, what those that it waits for wait for themselves.
  void read_also(std::shared_ptr<WaitNotes> notes) { notes_ = std::move(notes); }

 protected:
  [[noreturn, gnu::cold]] static void fail_closed() {
    throw TransportError(TransportError::closed, {}, "this rank's connections are closed");
  }
  // One exchange. Its first error closes this transport, and `stop` does what else that takes: what follows from close() by a monitor
  // is no error of its own.
  template <class Run, class Stop>
  void guard(Run run, Stop stop) {
    if (closed_.load()) fail_closed();
    try {
      run();
    } catch (...) {
      const bool by_monitor = closed_.exchange(true);
      stop();
      if (by_monitor) fail_closed();
      throw;
    }
  }

  std::atomic<bool> closed_{false};
  std::shared_ptr<WaitNotes> notes_;
};

}  // namespace shardwise::detail
