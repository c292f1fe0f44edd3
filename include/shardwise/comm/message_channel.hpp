// MessageChannel: what collectives over messages need: all that a rank sends and receives in one step, at once. Knows no element
// types. Layer: comm.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>

namespace shardwise::detail {

// Bytes for `peer`, and room for those that it sends. At most one of each per peer and step. Null `data` with bytes: packed while
// it is sent.
struct Outgoing {
  int peer;
  const std::byte* data;
  std::size_t bytes;
};
struct Incoming {
  int peer;
  std::byte* data;
  std::size_t bytes;
};

// pack(i, at, bytes, to): writes the bytes [at, at + bytes) of the i-th outgoing, whose data is null, to `to`. Called for pieces that
// stay in a cache, in order. By reference: lives no longer than the call that it is written in.
class PackFunction {
 public:
  PackFunction() = default;
  template <class F>
    requires std::invocable<const F&, std::size_t, std::size_t, std::size_t, std::byte*>
  PackFunction(const F& f)  // NOLINT: packs are written as lambdas
      : object_(&f), call_([](const void* object, std::size_t i, std::size_t at, std::size_t bytes, std::byte* to) {
          (*static_cast<const F*>(object))(i, at, bytes, to);
        }) {}
  void operator()(std::size_t i, std::size_t at, std::size_t bytes, std::byte* to) const {
    call_(object_, i, at, bytes, to);
  }

 private:
  const void* object_ = nullptr;
  void (*call_)(const void*, std::size_t, std::size_t, std::size_t, std::byte*) = nullptr;
};

// One call of one rank, as its steps see it. Ranks are those of the group.
class MessageChannel {
 public:
  virtual ~MessageChannel() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Returns when all has been received and all that is sent may be overwritten. Sends and receives go on together, whatever
  // their sizes. Throws: MismatchError, PeerFailedError, TimeoutError.
  virtual void step(std::span<const Outgoing> out, std::span<const Incoming> in, PackFunction pack = {}) = 0;
};

}  // namespace shardwise::detail
