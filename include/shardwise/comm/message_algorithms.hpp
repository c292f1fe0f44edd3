// How bytes go between ranks that exchange messages: directly, around a ring, or by Bruck's and binomial trees' ways (MessageSwitch says
// which); a reduction gathers all terms and adds them in rank order, with the kernels of direct communicators: the same bits.
// Layer: comm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/message_channel.hpp>
#include <shardwise/comm/reduce.hpp>
#include <shardwise/comm/stream.hpp>

namespace shardwise::detail {

// Which way by size and number of ranks: measured over Gloo on a loopback of 2 cores for 3 to 32 ranks (bench/README.md says how,
// and with what), where a byte costs the same wherever it goes; a network would rather send each byte over one link once.
struct MessageSwitch {
  // all_gather: up to so many ranks each sends to each. Beyond: Bruck's log2 steps for up to so many bytes in all (0.4 to 0.9 of each
  // to each with 8 to 32 ranks, 1.1 for the last with 8), else around a ring (at 4 MiB 0.3 to 0.4 in 5 of 8 runs, else 0.9 to 1.5).
  static constexpr int direct_ranks = 4;
  static constexpr std::size_t bruck_bytes = 1024 * 1024;
  // all_reduce: up to so many bytes of all inputs together everyone gets all of them: one step instead of two. They meet between
  // 64 KiB (32 ranks) and 256 KiB (4 ranks).
  static constexpr std::size_t one_step_reduce_bytes = 128 * 1024;
  // A reduction adds so many bytes of each rank's part at a time, a multiple of every element: of 16 MiB by 4 ranks that and 1 MiB take
  // the processor's time of the whole at once, 256 KiB 1.1 to 1.2 of it, 64 KiB 1.25.
  static constexpr std::size_t reduce_slab_bytes = 4 * 1024 * 1024;
  // broadcast: with so many ranks, from so many bytes on, a scatter and an all_gather: the root sends each byte once. They
  // meet between 1 MiB (4 ranks) and 4 MiB (8 and 32); with 3 ranks the tree is twice as fast.
  static constexpr int scatter_broadcast_ranks = 4;
  static constexpr std::size_t scatter_broadcast_bytes = 2 * 1024 * 1024;
  // scatter: a binomial tree for up to so many bytes in all from so many ranks on. With fewer it is no faster (0.95 to 1.1).
  static constexpr int tree_scatter_ranks = 33;
  static constexpr std::size_t tree_scatter_bytes = 64 * 1024;
};

inline int ring_rank(int rank, int size) { return ((rank % size) + size) % size; }

inline void copy_bytes(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

// Where the block of each rank begins, in bytes; one more entry for the end.
class BlockOffsets {
 public:
  BlockOffsets(int size, std::size_t bytes) : at_(static_cast<std::size_t>(size) + 1) {
    for (std::size_t r = 0; r < at_.size(); ++r) at_[r] = r * bytes;
  }
  BlockOffsets(std::span<const std::int64_t> counts, std::size_t element) : at_(counts.size() + 1) {
    for (std::size_t r = 0; r < counts.size(); ++r) at_[r + 1] = at_[r] + static_cast<std::size_t>(counts[r]) * element;
  }
  // n elements in as many parts as there are ranks, in whole cache lines.
  static BlockOffsets parts(int size, std::int64_t n, std::size_t element) {
    const std::int64_t part = (n / size + 64) / 64 * 64;
    BlockOffsets offsets(size, 0);
    for (int r = 0; r <= size; ++r)
      offsets.at_[static_cast<std::size_t>(r)] = static_cast<std::size_t>(std::min(n, r * part)) * element;
    return offsets;
  }
  std::size_t operator[](int rank) const { return at_[static_cast<std::size_t>(rank)]; }
  std::size_t bytes(int rank) const { return (*this)[rank + 1] - (*this)[rank]; }
  std::size_t total() const { return at_.back(); }
  int size() const { return static_cast<int>(at_.size()) - 1; }

 private:
  std::vector<std::size_t> at_;
};

// Every rank sends `sent(r)` to each other rank r, and receives `received(r)` from it. From the next rank on, so that not all
// send to the same one first.
template <class Sent, class Received>
void step_with_all(MessageChannel& channel, Sent sent, Received received, PackFunction pack = {},
                   UnpackFunction unpack = {}) {
  const int size = channel.size();
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  out.reserve(static_cast<std::size_t>(size));
  in.reserve(static_cast<std::size_t>(size));
  for (int k = 1; k < size; ++k) {
    out.push_back(sent(ring_rank(channel.rank() + k, size)));
    in.push_back(received(ring_rank(channel.rank() - k, size)));
  }
  channel.step(out, in, pack, unpack);
}

// ---- all_gather: the own block stands in its place ---------------------------------------------------------------

inline void all_gather_direct(MessageChannel& channel, std::byte* out, const BlockOffsets& at) {
  const int rank = channel.rank();
  step_with_all(
      channel, [&](int r) { return Outgoing{r, out + at[rank], at.bytes(rank)}; },
      [&](int r) { return Incoming{r, out + at[r], at.bytes(r)}; });
}

inline void all_gather_ring(MessageChannel& channel, std::byte* out, const BlockOffsets& at) {
  const int rank = channel.rank(), size = channel.size();
  const int next = ring_rank(rank + 1, size), previous = ring_rank(rank - 1, size);
  for (int k = 0; k < size - 1; ++k) {
    const int mine = ring_rank(rank - k, size), theirs = ring_rank(rank - k - 1, size);
    const Outgoing send{next, out + at[mine], at.bytes(mine)};
    const Incoming receive{previous, out + at[theirs], at.bytes(theirs)};
    channel.step({&send, 1}, {&receive, 1});
  }
}

// Step k: this rank has the blocks of the 2^k ranks from itself on, and gets those of the next 2^k. In a copy that begins with its
// own block, so that what it sends is in one piece.
inline void all_gather_bruck(MessageChannel& channel, std::byte* out, const BlockOffsets& at) {
  const int rank = channel.rank(), size = channel.size();
  const auto block = [&](int k) { return ring_rank(rank + k, size); };
  const Buffer turned(at.total());
  std::vector<std::size_t> place(static_cast<std::size_t>(size) + 1);
  for (int k = 0; k < size; ++k)
    place[static_cast<std::size_t>(k) + 1] = place[static_cast<std::size_t>(k)] + at.bytes(block(k));
  copy_bytes(turned.data(), out + at[rank], at.bytes(rank));
  for (int have = 1; have < size; have *= 2) {
    const auto begin = static_cast<std::size_t>(have), count = static_cast<std::size_t>(std::min(have, size - have));
    const Outgoing send{ring_rank(rank - have, size), turned.data(), place[count]};
    const Incoming receive{ring_rank(rank + have, size), turned.data() + place[begin],
                           place[begin + count] - place[begin]};
    channel.step({&send, 1}, {&receive, 1});
  }
  for (int k = 1; k < size; ++k)
    copy_bytes(out + at[block(k)], turned.data() + place[static_cast<std::size_t>(k)], at.bytes(block(k)));
}

inline void all_gather_in_place(MessageChannel& channel, std::byte* out, const BlockOffsets& at) {
  if (channel.size() == 1) return;
  if (channel.size() <= MessageSwitch::direct_ranks)
    all_gather_direct(channel, out, at);
  else if (at.total() <= MessageSwitch::bruck_bytes)
    all_gather_bruck(channel, out, at);
  else
    all_gather_ring(channel, out, at);
}

inline void all_gather_bytes(MessageChannel& channel, const std::byte* in, std::byte* out, const BlockOffsets& at) {
  copy_bytes(out + at[channel.rank()], in, at.bytes(channel.rank()));
  all_gather_in_place(channel, out, at);
}

// ---- reductions ---------------------------------------------------------------------------------------------------

// `term(r)`: where the input of rank r lies.
template <class Term>
void reduce_in_rank_order(const ReduceKernels& kernels, std::byte* out, int size, Term term, std::size_t bytes,
                          ReduceOp op) {
  if (bytes == 0) return;
  SHARDWISE_REQUIRE(size <= max_ranks_reduced,
                    text("shardwise: ", size, " ranks are too many for a reduction, of at most ", max_ranks_reduced));
  const void* terms[max_ranks_reduced];
  terms[0] = nullptr;  // g++ -O3 does not see that there is a rank at least
  for (int r = 0; r < size; ++r) terms[r] = term(r);
  reduce_blocks(kernels, out, terms, size, static_cast<std::int64_t>(bytes / kernels.element), op,
                bytes >= streamed_bytes);
}

// `out` gets this rank's block of the reduction. It may lie in its own place of `in`. `slab` bytes of each block at a time: the terms of
// so many are what it takes beside them.
inline void reduce_scatter_bytes(MessageChannel& channel, const ReduceKernels& kernels, const std::byte* in,
                                 std::byte* out, const BlockOffsets& at, ReduceOp op,
                                 std::size_t slab = MessageSwitch::reduce_slab_bytes) {
  const int rank = channel.rank(), size = channel.size();
  std::size_t longest = 0;
  for (int r = 0; r < size; ++r) longest = std::max(longest, at.bytes(r));
  const Buffer terms(std::min(slab, at.bytes(rank)) * static_cast<std::size_t>(size - 1));
  std::vector<Outgoing> send;
  std::vector<Incoming> receive;
  std::size_t begin = 0;
  do {
    const auto left = [&](int r) { return std::min(slab, at.bytes(r) - std::min(begin, at.bytes(r))); };
    const std::size_t mine = left(rank);
    const auto term = [&](int r) { return terms.data() + static_cast<std::size_t>(r < rank ? r : r - 1) * mine; };
    send.clear(), receive.clear();
    for (int k = 1; k < size; ++k) {  // from the next rank on, as step_with_all
      const int to = ring_rank(rank + k, size), from = ring_rank(rank - k, size);
      if (begin == 0 || left(to) > 0) send.push_back({to, in + at[to] + begin, left(to)});
      if (begin == 0 || mine > 0) receive.push_back({from, term(from), mine});
    }
    if (size > 1) channel.step(send, receive);
    if (mine > 0)
      reduce_in_rank_order(
          kernels, out + begin, size, [&](int r) { return r == rank ? in + at[rank] + begin : term(r); }, mine, op);
    begin += slab;
  } while (begin < longest);
}

// `in` may be `out` in all of these.
inline void all_reduce_in_one_step(MessageChannel& channel, const ReduceKernels& kernels, const std::byte* in,
                                   std::byte* out, std::size_t bytes, ReduceOp op) {
  const BlockOffsets at(channel.size(), bytes);
  const Buffer terms(at.total());
  all_gather_bytes(channel, in, terms.data(), at);
  reduce_in_rank_order(kernels, out, channel.size(), [&](int r) { return terms.data() + at[r]; }, bytes, op);
}
inline void all_reduce_in_two_steps(MessageChannel& channel, const ReduceKernels& kernels, const std::byte* in,
                                    std::byte* out, std::size_t bytes, ReduceOp op) {
  const BlockOffsets at =
      BlockOffsets::parts(channel.size(), static_cast<std::int64_t>(bytes / kernels.element), kernels.element);
  reduce_scatter_bytes(channel, kernels, in, out + at[channel.rank()], at, op);
  all_gather_in_place(channel, out, at);
}
inline void all_reduce_bytes(MessageChannel& channel, const ReduceKernels& kernels, const std::byte* in, std::byte* out,
                             std::size_t bytes, ReduceOp op) {
  const bool few = bytes * static_cast<std::size_t>(channel.size()) <= MessageSwitch::one_step_reduce_bytes;
  (few ? all_reduce_in_one_step : all_reduce_in_two_steps)(channel, kernels, in, out, bytes, op);
}

// ---- from a root ---------------------------------------------------------------------------------------------------

inline void broadcast_tree(MessageChannel& channel, std::byte* data, std::size_t bytes, int root) {
  const int size = channel.size(), place = ring_rank(channel.rank() - root, size);
  int reach = 1;  // the ranks of the tree below this one
  for (; reach < size; reach *= 2) {
    if ((place & reach) == 0) continue;
    const Incoming receive{ring_rank(place - reach + root, size), data, bytes};
    channel.step({}, {&receive, 1});
    break;
  }
  std::vector<Outgoing> send;
  for (reach /= 2; reach > 0; reach /= 2)
    if (place + reach < size) send.push_back({ring_rank(place + reach + root, size), data, bytes});
  if (!send.empty()) channel.step(send, {});
}

inline void scatter_direct(MessageChannel& channel, const std::byte* in, std::byte* out, const BlockOffsets& at,
                           int root) {
  const int rank = channel.rank();
  if (rank != root) {
    const Incoming receive{root, out, at.bytes(rank)};
    return channel.step({}, {&receive, 1});
  }
  std::vector<Outgoing> send;
  for (int k = 1; k < channel.size(); ++k) {
    const int r = ring_rank(root + k, channel.size());
    send.push_back({r, in + at[r], at.bytes(r)});
  }
  copy_bytes(out, in + at[rank], at.bytes(rank));
  channel.step(send, {});
}

// Each rank gets the blocks of its part of the tree, and passes halves of them on.
inline void scatter_tree(MessageChannel& channel, const std::byte* in, std::byte* out, const BlockOffsets& at,
                         int root) {
  const int size = channel.size(), place = ring_rank(channel.rank() - root, size);
  const auto block = [&](int k) { return ring_rank(k + root, size); };
  const auto bytes_of = [&](int begin, int end) {
    std::size_t bytes = 0;
    for (int k = begin; k < std::min(end, size); ++k) bytes += at.bytes(block(k));
    return bytes;
  };
  int reach = 1;
  while (reach < size && (place & reach) == 0) reach *= 2;
  const Buffer mine(bytes_of(place, place + reach));
  if (place == 0) {
    std::size_t to = 0;
    for (int k = 0; k < size; to += at.bytes(block(k)), ++k)
      copy_bytes(mine.data() + to, in + at[block(k)], at.bytes(block(k)));
  } else {
    const Incoming receive{block(place - reach), mine.data(), bytes_of(place, place + reach)};
    channel.step({}, {&receive, 1});
  }
  std::vector<Outgoing> send;
  for (int half = reach / 2; half > 0; half /= 2)
    if (place + half < size)
      send.push_back(
          {block(place + half), mine.data() + bytes_of(place, place + half), bytes_of(place + half, place + 2 * half)});
  copy_bytes(out, mine.data(), at.bytes(channel.rank()));
  if (!send.empty()) channel.step(send, {});
}

inline void scatter_bytes(MessageChannel& channel, const std::byte* in, std::byte* out, const BlockOffsets& at,
                          int root) {
  if (channel.size() == 1)
    copy_bytes(out, in, at.total());
  else if (channel.size() >= MessageSwitch::tree_scatter_ranks && at.total() <= MessageSwitch::tree_scatter_bytes)
    scatter_tree(channel, in, out, at, root);
  else
    scatter_direct(channel, in, out, at, root);
}

inline void broadcast_scattered(MessageChannel& channel, std::byte* data, std::size_t bytes, int root) {
  const BlockOffsets at = BlockOffsets::parts(channel.size(), static_cast<std::int64_t>(bytes), 1);
  scatter_bytes(channel, data, data + at[channel.rank()], at, root);
  all_gather_in_place(channel, data, at);
}
inline void broadcast_bytes(MessageChannel& channel, std::byte* data, std::size_t bytes, int root) {
  if (channel.size() == 1) return;
  if (channel.size() < MessageSwitch::scatter_broadcast_ranks || bytes < MessageSwitch::scatter_broadcast_bytes)
    broadcast_tree(channel, data, bytes, root);
  else
    broadcast_scattered(channel, data, bytes, root);
}

// ---- the others ------------------------------------------------------------------------------------------------------

inline void all_to_all_bytes(MessageChannel& channel, const std::byte* in, const BlockOffsets& from, std::byte* out,
                             const BlockOffsets& to) {
  const int rank = channel.rank();
  copy_bytes(out + to[rank], in + from[rank], std::min(from.bytes(rank), to.bytes(rank)));
  if (channel.size() > 1)
    step_with_all(
        channel, [&](int r) { return Outgoing{r, in + from[r], from.bytes(r)}; },
        [&](int r) { return Incoming{r, out + to[r], to.bytes(r)}; });
}

// log2 steps; after step k a rank knows that the 2^(k + 1) before it have come.
inline void barrier_messages(MessageChannel& channel) {
  const int rank = channel.rank(), size = channel.size();
  for (int far = 1; far < size; far *= 2) {
    const Outgoing send{ring_rank(rank + far, size), nullptr, 0};
    const Incoming receive{ring_rank(rank - far, size), nullptr, 0};
    channel.step({&send, 1}, {&receive, 1});
  }
}

// Both ends of a message say what they do, also the receiver: a sender knows that it has come, and with what it does not agree.
inline void send_bytes(MessageChannel& channel, const void* data, std::size_t bytes, int dest) {
  const Outgoing send{dest, static_cast<const std::byte*>(data), bytes};
  const Incoming receive{dest, nullptr, 0};
  channel.step({&send, 1}, {&receive, 1});
}
inline void receive_bytes(MessageChannel& channel, void* data, std::size_t bytes, int source) {
  const Outgoing send{source, nullptr, 0};
  const Incoming receive{source, static_cast<std::byte*>(data), bytes};
  channel.step({&send, 1}, {&receive, 1});
}

}  // namespace shardwise::detail
