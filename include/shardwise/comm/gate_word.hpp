// GateWord: whether a call of a group happens, decided in one word, among threads and among processes. Layer: comm.
#pragma once

#include <cstdint>

namespace shardwise::detail {

// The generation (calls completed), the ranks that arrived for the next one, and whether the group has failed. The last to arrive
// moves the generation, a failure sets its bit, both by compare and swap on this word. So either all ranks enter the data phase or
// none does, and no rank unwinds while a peer reads its buffers. A flag beside a counter cannot promise that.
struct GateWord {
  static constexpr std::uint64_t failed_bit = 1u << 16;
  static constexpr std::uint32_t generation(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }
  static constexpr int arrived(std::uint64_t word) { return static_cast<int>(word & 0xffffu); }
  static constexpr bool failed(std::uint64_t word) { return (word & failed_bit) != 0; }
  static constexpr std::uint64_t next_generation(std::uint64_t word) {
    return static_cast<std::uint64_t>(generation(word) + 1u) << 32;
  }
};

}  // namespace shardwise::detail
