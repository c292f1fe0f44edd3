// Several moves in one exchange where ranks see nothing of each other but messages: what a rank takes of each tensor of another
// comes in one message. Over values. Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/redistribute/owned_move.hpp>
#include <shardwise/redistribute/packed_move.hpp>
#include <shardwise/redistribute/packed_reads.hpp>

namespace shardwise::detail {

// One tensor of them. Made from a plan that refers to `move`; stays where it was made.
template <bool Interleaved, class = void>  // both kinds templates: compiled where they are called
class PackedPart {
 public:
  PackedPart(const OwnedMove<Interleaved>& move, const void* in, void* out)
      : plan_(move.plan()), moved_(plan_, move.global(), move.dtype()), inputs_(moved_, in, out), out_(out) {}
  PackedPart(const PackedPart&) = delete;
  PackedPart& operator=(const PackedPart&) = delete;

  const PackedSizes& sizes() const { return inputs_.sizes(); }
  void pack(int rank, std::size_t bytes, std::byte* to) const {
    if (const std::byte* const from = inputs_.source(rank))
      std::memcpy(to, from, bytes);
    else
      inputs_.pack(rank, 0, bytes, to);
  }
  void unpack(const std::byte* const* in) const { moved_.unpack(inputs_, in, out_); }

  // A sum that several ranks want takes a second exchange: each has reduced its share.
  bool shares() const { return plan_.shares(); }

 private:
  template <class Part>
  friend class BasicPackedShares;

  MovePlan plan_;
  PackedMove moved_;
  PackedMove::Inputs inputs_;
  void* out_;
};

template <class Unused>
class PackedPart<true, Unused> {
 public:
  PackedPart(const OwnedMove<true>& move, const void* in, void* out)
      : plan_(move.plan()), reads_(plan_, move.dtype()), sizes_(reads_.sizes()), in_(in), out_(out) {}
  PackedPart(const PackedPart&) = delete;
  PackedPart& operator=(const PackedPart&) = delete;

  const PackedSizes& sizes() const { return sizes_; }
  void pack(int rank, std::size_t, std::byte* to) const { reads_.pack(rank, in_, to); }
  void unpack(const std::byte* const* in) const { reads_.unpack(in, out_); }
  bool shares() const { return false; }

 private:
  Remap plan_;
  PackedReads<Remap> reads_;
  PackedSizes sizes_;
  const void* in_;
  void* out_;
};

// The second half of a PackedPart that shares.
template <class Part = PackedPart<false>>
class BasicPackedShares {
 public:
  explicit BasicPackedShares(const Part& part) : part_(part), shares_(part.moved_, part.out_) {}

  const PackedSizes& sizes() const { return shares_.sizes(); }
  void pack(int rank, std::size_t bytes, std::byte* to) const { std::memcpy(to, shares_.source(rank), bytes); }
  void unpack(const std::byte* const* in) const { part_.moved_.unpack(shares_, in, part_.out_); }

 private:
  const Part& part_;
  PackedMove::Shares shares_;
};
using PackedShares = BasicPackedShares<>;

// One exchange of all parts. In a message each begins at a whole line of the cache, as its elements need.
template <class Comm, class Part>
void exchange_parts(const Comm& group, const CallInfo& call, const List<Ref<Part>>& parts) {
  const int ranks = group.size();
  PackedSizes sizes(static_cast<std::size_t>(ranks));
  const auto whole_lines = [](std::int64_t bytes) { return (bytes + 63) / 64 * 64; };
  const auto sent = [](const Part& part, int rank) { return part.sizes().sends()[static_cast<std::size_t>(rank)]; };
  const auto received = [](const Part& part, int rank) {
    return part.sizes().receives()[static_cast<std::size_t>(rank)];
  };
  for (int r = 0; r < ranks; ++r)
    for (const Ref<Part>& part : parts) {
      sizes.to(r) += whole_lines(sent(*part, r));
      sizes.from(r) += whole_lines(received(*part, r));
    }
  const auto pack = [&](int rank, std::byte* to) {
    for (const Ref<Part>& part : parts) {
      const std::int64_t bytes = sent(*part, rank), room = whole_lines(bytes);
      if (bytes > 0) part->pack(rank, static_cast<std::size_t>(bytes), to);
      std::memset(to + bytes, 0, static_cast<std::size_t>(room - bytes));
      to += room;
    }
  };
  group.exchange_packed(call, sizes.sends(), sizes.receives(), pack, [&](const Peers& peers) {
    List<const std::byte*> in;
    for (int r = 0; r < ranks; ++r) in.push_back(peers.in[r]);
    for (const Ref<Part>& part : parts) {
      part->unpack(in.data());
      for (int r = 0; r < ranks; ++r) in[static_cast<std::size_t>(r)] += whole_lines(received(*part, r));
    }
  });
}

// Ranks: all of the group.
template <bool Interleaved, class Comm>
void exchange_packed_parts(const Comm& group, CallInfo call, const List<Ref<PackedPart<Interleaved>>>& parts) {
  exchange_parts(group, call, parts);
  if constexpr (!Interleaved) {
    List<Ref<PackedShares>> shares;
    for (const auto& part : parts)
      if (part->shares()) shares.push_back(make_ref<PackedShares>(*part));
    if (shares.empty()) return;
    call.bytes = CallInfo::part_of_another;
    exchange_parts(group, call, shares);
  }
}

}  // namespace shardwise::detail
