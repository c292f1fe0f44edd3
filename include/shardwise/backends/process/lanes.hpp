// SharedLanes: one message at a time from each rank of a host to each other one, in the segment through which they meet: for worlds
// of several hosts. Layer: backends/process.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/segment.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

// Written by its sender, but for `taken`. All zeros is an empty one.
struct alignas(64) SharedLane {
  // Payloads of at most so many bytes lie here, and are free when they are posted. Others lie in the sender's arena.
  static constexpr std::size_t inline_limit = 4096;

  std::atomic<std::uint64_t> posted;  // messages so far
  SharedOffer offer;  // nowhere: the payload is here
  alignas(64) MessageHeader header;
  alignas(64) std::atomic<std::uint64_t> taken;  // messages that the receiver has done with
  alignas(64) std::byte payload[inline_limit];

  bool is_free() const { return taken.load(std::memory_order_acquire) == posted.load(std::memory_order_relaxed); }
  bool has_message() const { return posted.load(std::memory_order_acquire) != taken.load(std::memory_order_relaxed); }
};

// Of `ranks` ranks: what each sleeps on, then the lanes.
class SharedLanes {
 public:
  SharedLanes(std::byte* at, int ranks) : at_(at), ranks_(static_cast<std::size_t>(ranks)) {}

  static std::size_t bytes(int ranks) {
    const auto n = static_cast<std::size_t>(ranks);
    return n * sizeof(SharedWaitSignal) + n * n * sizeof(SharedLane);
  }

  SharedWaitSignal& signal(int rank) const { return reinterpret_cast<SharedWaitSignal*>(at_)[rank]; }
  SharedLane& lane(int from, int to) const {
    auto* const lanes = reinterpret_cast<SharedLane*>(at_ + ranks_ * sizeof(SharedWaitSignal));
    return lanes[static_cast<std::size_t>(from) * ranks_ + static_cast<std::size_t>(to)];
  }

 private:
  std::byte* at_;
  std::size_t ranks_;
};

}  // namespace shardwise::detail
