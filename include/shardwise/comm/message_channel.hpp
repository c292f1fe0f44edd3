// MessageChannel: what collectives over messages need: all that a rank sends and receives in one step, at once. Knows no element
// types. Layer: comm.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>

namespace shardwise::detail {

// Bytes for `peer`, and room for those that it sends. At most one of each per peer and step. Null `data` with bytes: packed while
// it is sent, unpacked as it comes.
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

// f(i, at, bytes, where): for the bytes [at, at + bytes) of the i-th message of a step, whose data is null. Called for pieces that stay
// in a cache. By reference: lives no longer than the call that it is written in.
template <class Byte>
class PieceFunction {
 public:
  PieceFunction() = default;
  template <class F>
    requires std::invocable<const F&, std::size_t, std::size_t, std::size_t, Byte*>
  PieceFunction(const F& f)  // NOLINT: packs are written as lambdas
      : object_(&f), call_([](const void* object, std::size_t i, std::size_t at, std::size_t bytes, Byte* where) {
          (*static_cast<const F*>(object))(i, at, bytes, where);
        }) {}
  void operator()(std::size_t i, std::size_t at, std::size_t bytes, Byte* where) const {
    call_(object_, i, at, bytes, where);
  }

 private:
  const void* object_ = nullptr;
  void (*call_)(const void*, std::size_t, std::size_t, std::size_t, Byte*) = nullptr;
};
using PackFunction = PieceFunction<std::byte>;  // writes what is sent, in order
using UnpackFunction = PieceFunction<const std::byte>;  // reads what has come, in any order, once the headers agreed

// One call of one rank, as its steps see it. Ranks are those of the group.
class MessageChannel {
 public:
  virtual ~MessageChannel() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Returns when all has been received and all that is sent may be overwritten. Sends and receives go on together, whatever
  // their sizes. Throws: MismatchError, PeerFailedError, TimeoutError.
  virtual void step(std::span<const Outgoing> out, std::span<const Incoming> in, PackFunction pack = {},
                    UnpackFunction unpack = {}) = 0;
};

}  // namespace shardwise::detail
