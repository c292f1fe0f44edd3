// StreamCommunicator: what a communicator gives whose calls are put on a stream of a device and return before they are done. Element
// types are values and buffers addresses here: what moves tensors is compiled once. Layer: comm.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>

namespace shardwise {

/// A piece of memory of this rank's device that goes to another rank, or comes from it.
struct StreamMessage {
  int rank;
  std::byte* data;
  std::int64_t elements;  ///< of `CallInfo::dtype`, at least 1
};

/// A communicator whose work is ordered on a device stream. `call` says the element type, the operation of a reduction, the root, and
/// what errors and traces are told. All is put on the calling thread's current stream of the rank's device.
///   all_gather_on_stream(call, in, out, n)       n elements of each rank, in rank order; in place where `in` is its part of `out`
///   reduce_scatter_on_stream(call, in, out, n)   n elements for each rank; in place likewise
///   all_reduce_on_stream(call, in, out, n)       `out` may be `in`
///   broadcast_on_stream(call, data, n)           from `call.root`
///   exchange_on_stream(call, sends, receives)    as one group; what one rank sends to another one arrives in order; none to itself
///   device()                                     of this rank
template <class C>
concept StreamCommunicator = Communicator<C> && requires(const C& c, const CallInfo& call, const void* in, void* out,
                                                         std::int64_t n, std::span<const StreamMessage> messages) {
  c.all_gather_on_stream(call, in, out, n);
  c.reduce_scatter_on_stream(call, in, out, n);
  c.all_reduce_on_stream(call, in, out, n);
  c.broadcast_on_stream(call, out, n);
  c.exchange_on_stream(call, messages, messages);
};

}  // namespace shardwise
