// PackedBlocks: blocks between all ranks that their caller packs and unpacks, over messages. Layer: comm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/message_algorithms.hpp>
#include <shardwise/comm/message_channel.hpp>

namespace shardwise::detail {

// The blocks that the ranks have for each other, made and used by the caller: what a redistribution executes over messages. Those
// that come lie where `pack` says, or here until this object goes.
class PackedBlocks {
 public:
  PackedBlocks(MessageChannel& channel, std::span<const std::int64_t> send_bytes,
               std::span<const std::int64_t> receive_bytes, const shardwise::PackFunction& pack)
      : blocks_(receive_bytes.size(), nullptr) {
    pack.in_pieces() ? in_pieces(channel, send_bytes, receive_bytes, pack)
                     : as_wholes(channel, send_bytes, receive_bytes, pack);
  }

  // What `rank` sent; of all ranks. Null where it has been unpacked.
  const std::byte* operator[](int rank) const { return blocks_[index(rank)]; }
  const std::byte* const* data() const { return blocks_.data(); }

 private:
  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }
  static std::size_t size_in(std::span<const std::int64_t> bytes, int rank) {
    return static_cast<std::size_t>(bytes[index(rank)]);
  }
  static std::size_t whole_lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  // The own block comes last, when the headers have agreed. It is not copied where it lies already and shall lie nowhere else.
  void in_pieces(MessageChannel& channel, std::span<const std::int64_t> send_bytes,
                 std::span<const std::int64_t> receive_bytes, const shardwise::PackFunction& pack) {
    const int rank = channel.rank(), size = channel.size();
    for (int r = 0; r < size; ++r) blocks_[index(r)] = pack.place(r);
    std::byte*& own = blocks_[index(rank)];
    if (own == nullptr && !pack.unpacks()) own = const_cast<std::byte*>(pack.source(rank));  // read, never written
    if (!pack.unpacks()) allocate(receive_bytes);
    // Numbers are of the order of step_with_all.
    exchange(
        channel, send_bytes, receive_bytes, [&](int r) { return pack.source(r); },
        [&](std::size_t i, std::size_t at, std::size_t bytes, std::byte* to) {
          pack.pack(ring_rank(rank + 1 + static_cast<int>(i), size), at, bytes, to);
        },
        [&](std::size_t i, std::size_t at, std::size_t bytes, const std::byte* from) {
          pack.unpack(ring_rank(rank - 1 - static_cast<int>(i), size), at, bytes, from);
        });
    if (send_bytes[index(rank)] == 0) return;
    own != nullptr ? pack(rank, size_in(send_bytes, rank), own) : unpack_own(rank, size_in(send_bytes, rank), pack);
  }

  static void unpack_own(int rank, std::size_t bytes, const shardwise::PackFunction& pack) {
    if (const std::byte* const from = pack.source(rank)) return pack.unpack(rank, 0, bytes, from);
    alignas(64) std::byte piece[16 * 1024];
    for (std::size_t at = 0; at < bytes; at += sizeof piece) {
      const std::size_t n = std::min(sizeof piece, bytes - at);
      pack.pack(rank, at, n, piece);
      pack.unpack(rank, at, n, piece);
    }
  }

  // Costs a copy of what is sent.
  void as_wholes(MessageChannel& channel, std::span<const std::int64_t> send_bytes,
                 std::span<const std::int64_t> receive_bytes, const shardwise::PackFunction& pack) {
    const int rank = channel.rank(), size = channel.size();
    allocate(receive_bytes);
    std::vector<std::size_t> at(index(size) + 1);
    for (int r = 0; r < size; ++r)
      at[index(r + 1)] = at[index(r)] + (r == rank ? 0 : whole_lines(size_in(send_bytes, r)));
    const Buffer packed(at.back());
    const auto block = [&](int r) { return r == rank ? blocks_[index(r)] : packed.data() + at[index(r)]; };
    for (int r = 0; r < size; ++r)
      if (send_bytes[index(r)] > 0) pack(r, size_in(send_bytes, r), block(r));
    exchange(channel, send_bytes, receive_bytes, block);
  }

  template <class Block>
  void exchange(MessageChannel& channel, std::span<const std::int64_t> send_bytes,
                std::span<const std::int64_t> receive_bytes, Block block, PackFunction pack = {},
                UnpackFunction unpack = {}) {
    if (channel.size() > 1)
      step_with_all(
          channel, [&](int r) { return Outgoing{r, block(r), size_in(send_bytes, r)}; },
          [&](int r) { return Incoming{r, blocks_[index(r)], size_in(receive_bytes, r)}; }, pack, unpack);
  }

  // Room for the blocks that the caller has none for.
  void allocate(std::span<const std::int64_t> bytes) {
    std::size_t total = 0;
    for (std::size_t r = 0; r < bytes.size(); ++r)
      total += blocks_[r] == nullptr ? whole_lines(static_cast<std::size_t>(bytes[r])) : 0;
    own_ = Buffer(total);
    std::size_t at = 0;
    for (std::size_t r = 0; r < bytes.size(); ++r)
      if (blocks_[r] == nullptr) {
        blocks_[r] = own_.data() + at;
        at += whole_lines(static_cast<std::size_t>(bytes[r]));
      }
  }

  Buffer own_;
  std::vector<std::byte*> blocks_;
};

}  // namespace shardwise::detail
