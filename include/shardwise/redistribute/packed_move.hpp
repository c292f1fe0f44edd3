// A move where ranks see nothing of each other but messages: a rank packs what each other one takes of it, and places what it
// gets. Over values. Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/lean.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/placement/move.hpp>
#include <shardwise/redistribute/box_copy.hpp>
#include <shardwise/redistribute/packed_box.hpp>
#include <shardwise/redistribute/pull.hpp>

namespace shardwise::detail {

// Bytes to each rank and from each rank.
template <class = void>
class BasicPackedSizes {
 public:
  explicit BasicPackedSizes(std::size_t ranks) : ranks_(ranks), bytes_(2 * ranks * sizeof(std::int64_t)) {
    std::memset(bytes_.data(), 0, 2 * ranks * sizeof(std::int64_t));
  }
  std::size_t ranks() const { return ranks_; }
  std::int64_t& to(int rank) { return bytes_.as<std::int64_t>()[rank]; }
  std::int64_t& from(int rank) { return bytes_.as<std::int64_t>()[ranks_ + static_cast<std::size_t>(rank)]; }
  std::span<const std::int64_t> sends() const { return span_of<const std::int64_t>(bytes_.as<std::int64_t>(), ranks_); }
  std::span<const std::int64_t> receives() const {
    return span_of<const std::int64_t>(bytes_.as<std::int64_t>() + ranks_, ranks_);
  }

 private:
  std::size_t ranks_;
  Buffer bytes_;
};
using PackedSizes = BasicPackedSizes<>;

// A template, so that a unit that sends no messages compiles none of it.
template <class = void>
class BasicPackedMove {
 public:
  BasicPackedMove(const MovePlan& plan, const Extents& global, DType dtype)
      : plan_(plan), global_(global), dtype_(dtype) {}

  // What every rank takes of this one's input: from where it lies, or packed piece by piece; and what this one takes to where it
  // belongs: straight there, or unpacked piece by piece. But for sums, whose terms are added up once all are here.
  class Inputs {
   public:
    Inputs(const BasicPackedMove& move, const void* in, void* out)
        : in_(static_cast<const std::byte*>(in)), out_(static_cast<std::byte*>(out)),
          sizes_(static_cast<std::size_t>(move.plan_.group_size())),
          boxes_(2 * static_cast<std::size_t>(move.plan_.group_size()) * sizeof(PackedBox)),
          adds_(move.plan_.kind().reduces), stream_(is_streamed(move.plan_.wanted(), size_of(move.dtype_))) {
      const MovePlan& plan = move.plan_;
      const std::size_t element = size_of(move.dtype_);
      const Box held = plan.held(plan.own_piece());
      for (int r = 0; r < plan.group_size(); ++r) {
        const Box part = move.taken_of_me(move.plan_of(r));
        sizes_.to(r) = move.bytes(part);
        new (&taken(r)) PackedBox(part.empty() ? held : part, held, element);
        new (&given(r)) PackedBox();
      }
      Coordinate c;
      if (plan.wanted().empty() || !plan.first_piece(c)) return;
      do {
        const Box part = part_of(plan, c);
        Coordinate term = c;
        do sizes_.from(plan.group_rank(term)) = move.bytes(part);
        while (plan.next_term(term));
        if (!adds_ && !part.empty()) new (&given(plan.group_rank(c))) PackedBox(part, plan.wanted(), element);
      } while (plan.next_piece(c));
    }

    const PackedSizes& sizes() const { return sizes_; }
    void pack(int rank, std::size_t at, std::size_t bytes, std::byte* to) const {
      taken(rank).pack(in_, at, bytes, to);
    }
    const std::byte* source(int rank) const { return taken(rank).in(in_); }
    std::byte* place(int rank) const { return given(rank).in(out_); }
    bool unpacks() const { return !adds_; }
    void unpack(int rank, std::size_t at, std::size_t bytes, const std::byte* from) const {
      given(rank).unpack(from, at, bytes, out_, stream_);
    }
    void fence() const {
      if (stream_) stream_fence();
    }

   private:
    PackedBox& taken(int rank) const { return boxes_.as<PackedBox>()[rank]; }
    PackedBox& given(int rank) const { return boxes_.as<PackedBox>()[sizes_.ranks() + static_cast<std::size_t>(rank)]; }

    const std::byte* in_;
    std::byte* out_;
    PackedSizes sizes_;
    Buffer boxes_;
    bool adds_, stream_;
  };

  // `in[r]`: what rank r sent, or null; nothing is left to do with that, nor with what lies in its place.
  void unpack(const Inputs& inputs, const std::byte* const* in, void* out) const {
    std::byte* outputs[1] = {static_cast<std::byte*>(out)};
    if (plan_.kind().reduces) return run(plan_, dtype_, detail::Inputs{in, nullptr}, outputs, 1, plan_.shares(), true);
    inputs.fence();
    Coordinate c;
    if (plan_.wanted().empty() || !plan_.first_piece(c)) return;
    do {
      const int rank = plan_.group_rank(c);
      const Box part = part_of(plan_, c);
      if (part.empty() || in[rank] == nullptr || in[rank] == inputs.place(rank)) continue;
      copy_box(part, part, in[rank], plan_.wanted(), outputs[0], size_of(dtype_));
    } while (plan_.next_piece(c));
  }

  // Of a sum that several ranks want, each has reduced its share: they are sent around. All get the same of this one, packed once
  // if at all.
  class Shares {
   public:
    Shares(const BasicPackedMove& move, void* out)
        : move_(move), out_(static_cast<std::byte*>(out)), sizes_(static_cast<std::size_t>(move.plan_.group_size())),
          places_(static_cast<std::size_t>(move.plan_.group_size()) * sizeof(std::byte*)) {
      const std::int64_t mine = move.bytes_of_shares(move.plan_);
      for (int r = 0; r < move.plan_.group_size(); ++r) places_.as<std::byte*>()[r] = nullptr;
      move.for_each_other_replica([&](int rank, const MovePlan& theirs) {
        sizes_.to(rank) = mine;
        sizes_.from(rank) = move.bytes_of_shares(theirs);
        places_.as<std::byte*>()[rank] = move.place_of_shares(theirs, out);
      });
      source_ = move.place_of_shares(move.plan_, out);
      if (source_ != nullptr) return;
      packed_ = Buffer(static_cast<std::size_t>(mine));
      move.pack_shares(out, packed_.data());
      source_ = packed_.data();
    }

    const PackedSizes& sizes() const { return sizes_; }
    void pack(int, std::size_t at, std::size_t bytes, std::byte* to) const { std::memcpy(to, source_ + at, bytes); }
    const std::byte* source(int) const { return source_; }
    std::byte* place(int rank) const { return places_.as<std::byte*>()[rank]; }
    bool unpacks() const { return true; }
    void unpack(int rank, std::size_t at, std::size_t bytes, const std::byte* from) const {
      std::size_t begin = 0;
      move_.for_each_share(move_.plan_of(rank), [&](const Box& part) {
        const PackedBox box(part, move_.plan_.wanted(), size_of(move_.dtype_));
        const std::size_t end = begin + static_cast<std::size_t>(box.bytes());
        const std::size_t first = std::max(at, begin), last = std::min(at + bytes, end);
        if (first < last) box.unpack(from + (first - at), first - begin, last - first, out_, false);
        begin = end;
      });
    }

   private:
    const BasicPackedMove& move_;
    std::byte* out_;
    PackedSizes sizes_;
    Buffer places_, packed_;
    const std::byte* source_ = nullptr;
  };

  void unpack(const Shares& shares, const std::byte* const* in, void* out) const {
    for_each_other_replica([&](int rank, const MovePlan& theirs) {
      if (in[rank] == nullptr || in[rank] == shares.place(rank)) return;
      const std::byte* from = in[rank];
      for_each_share(theirs, [&](const Box& part) {
        copy_box(part, part, from, plan_.wanted(), static_cast<std::byte*>(out), size_of(dtype_));
        from += bytes(part);
      });
    });
  }

  // Below: what the parts are, for who brings them otherwise.

  std::int64_t bytes(const Box& box) const {
    return box.empty() ? 0 : box.size.elements() * static_cast<std::int64_t>(size_of(dtype_));
  }

  MovePlan plan_of(int rank) const {
    return MovePlan(plan_.view(), plan_.kind(), plan_.coordinate_of(rank).at, global_);
  }

  static Box part_of(const MovePlan& plan, const Coordinate& c) {
    const Box held = plan.held(c);
    return plan.shares() ? plan.mine(c, held) : intersection(plan.wanted(), held);
  }

  // What another rank takes of this one's input.
  Box taken_of_me(const MovePlan& theirs) const {
    Coordinate unused;
    if (theirs.wanted().empty() || !theirs.first_piece(unused)) return nothing();
    return part_of(theirs, plan_.own_piece());
  }
  static Box nothing() {
    Box box;
    box.offset.rank = box.size.rank = 1;
    return box;
  }

  template <class F>
  static void for_each_share(const MovePlan& plan, F&& f) {
    Coordinate c;
    if (plan.wanted().empty() || !plan.first_piece(c)) return;
    do {
      const Box part = plan.mine(c, plan.held(c));
      if (!part.empty()) f(part);
    } while (plan.next_piece(c));
  }
  std::int64_t bytes_of_shares(const MovePlan& plan) const {
    std::int64_t n = 0;
    for_each_share(plan, [&](const Box& part) { n += bytes(part); });
    return n;
  }

  template <class F>
  void for_each_other_replica(F&& f) const {
    Coordinate c = plan_.first_replica();
    do {
      const int rank = plan_.group_rank(c);
      if (rank != plan_.group_rank()) f(rank, MovePlan(plan_.view(), plan_.kind(), c.at, global_));
    } while (plan_.next_replica(c));
  }

 private:
  // Where all shares of a rank lie in an output like this one's; null unless in one piece.
  std::byte* place_of_shares(const MovePlan& plan, void* out) const {
    std::byte* place = nullptr;
    int shares = 0;
    for_each_share(plan, [&](const Box& part) {
      place = PackedBox(part, plan_.wanted(), size_of(dtype_)).in(static_cast<std::byte*>(out));
      ++shares;
    });
    return shares == 1 ? place : nullptr;
  }
  void pack_shares(const void* out, std::byte* to) const {
    for_each_share(plan_, [&](const Box& part) {
      copy_box(part, plan_.wanted(), static_cast<const std::byte*>(out), part, to, size_of(dtype_));
      to += bytes(part);
    });
  }

  const MovePlan& plan_;
  const Extents& global_;
  DType dtype_;
};
using PackedMove = BasicPackedMove<>;

// Ranks: all of the group.
template <ExchangesPacked Comm>
void move_packed(const Comm& group, const MovePlan& plan, CallInfo call, const Extents& global, DType dtype,
                 const void* in, void* out) {
  const PackedMove move(plan, global, dtype);
  {
    const PackedMove::Inputs inputs(move, in, out);
    group.exchange_packed(call, inputs.sizes().sends(), inputs.sizes().receives(), inputs,
                          [&](const Peers& peers) { move.unpack(inputs, peers.in, out); });
  }
  if (!plan.shares()) return;
  call.bytes = CallInfo::part_of_another;
  const PackedMove::Shares shares(move, out);
  group.exchange_packed(call, shares.sizes().sends(), shares.sizes().receives(), shares,
                        [&](const Peers& peers) { move.unpack(shares, peers.in, out); });
}

}  // namespace shardwise::detail
