// A move where ranks see nothing of each other but messages: a rank packs what each other one takes of it, and places what it
// gets. Over values. Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/placement/move.hpp>
#include <shardwise/redistribute/box_copy.hpp>
#include <shardwise/redistribute/pull.hpp>

namespace shardwise::detail {

// Bytes to each rank and from each rank.
class PackedSizes {
 public:
  explicit PackedSizes(std::size_t ranks) : ranks_(ranks), bytes_(2 * ranks * sizeof(std::int64_t)) {
    std::memset(bytes_.data(), 0, 2 * ranks * sizeof(std::int64_t));
  }
  std::int64_t& to(int rank) { return bytes_.as<std::int64_t>()[rank]; }
  std::int64_t& from(int rank) { return bytes_.as<std::int64_t>()[ranks_ + static_cast<std::size_t>(rank)]; }
  std::span<const std::int64_t> sends() const { return {bytes_.as<std::int64_t>(), ranks_}; }
  std::span<const std::int64_t> receives() const { return {bytes_.as<std::int64_t>() + ranks_, ranks_}; }

 private:
  std::size_t ranks_;
  Buffer bytes_;
};

class PackedMove {
 public:
  PackedMove(const MovePlan& plan, const Extents& global, DType dtype) : plan_(plan), global_(global), dtype_(dtype) {}

  PackedSizes input_sizes() const {
    PackedSizes sizes(static_cast<std::size_t>(plan_.group_size()));
    for (int r = 0; r < plan_.group_size(); ++r) sizes.to(r) = bytes(taken_of_me(plan_of(r)));
    Coordinate c;
    if (plan_.wanted().empty() || !plan_.first_piece(c)) return sizes;
    do {
      const std::int64_t n = bytes(part_of(plan_, c));
      Coordinate term = c;
      do sizes.from(plan_.group_rank(term)) = n;
      while (plan_.next_term(term));
    } while (plan_.next_piece(c));
    return sizes;
  }

  void pack_input(int rank, const void* in, std::byte* to) const {
    const Box part = taken_of_me(plan_of(rank));
    if (part.empty()) return;
    copy_box(part, plan_.held(plan_.own_piece()), static_cast<const std::byte*>(in), part, to, size_of(dtype_));
  }

  void unpack_inputs(const std::byte* const* in, void* out) const {
    std::byte* outputs[1] = {static_cast<std::byte*>(out)};
    run(plan_, dtype_, Inputs{in, nullptr}, outputs, 1, plan_.shares(), true);
  }

  // Of a sum that several ranks want, each has reduced its share: they are sent around.
  PackedSizes share_sizes() const {
    PackedSizes sizes(static_cast<std::size_t>(plan_.group_size()));
    const std::int64_t mine = bytes_of_shares(plan_);
    for_each_other_replica([&](int rank, const MovePlan& theirs) {
      sizes.to(rank) = mine;
      sizes.from(rank) = bytes_of_shares(theirs);
    });
    return sizes;
  }

  void pack_shares(const void* out, std::byte* to) const {
    for_each_share(plan_, [&](const Box& part) {
      copy_box(part, plan_.wanted(), static_cast<const std::byte*>(out), part, to, size_of(dtype_));
      to += bytes(part);
    });
  }

  void unpack_shares(const std::byte* const* in, void* out) const {
    for_each_other_replica([&](int rank, const MovePlan& theirs) {
      const std::byte* from = in[rank];
      for_each_share(theirs, [&](const Box& part) {
        copy_box(part, part, from, plan_.wanted(), static_cast<std::byte*>(out), size_of(dtype_));
        from += bytes(part);
      });
    });
  }

 private:
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

  const MovePlan& plan_;
  const Extents& global_;
  DType dtype_;
};

// Ranks: all of the group.
template <ExchangesPacked Comm>
void move_packed(const Comm& group, const MovePlan& plan, CallInfo call, const Extents& global, DType dtype,
                 const void* in, void* out) {
  const PackedMove move(plan, global, dtype);
  const PackedSizes inputs = move.input_sizes();
  group.exchange_packed(
      call, inputs.sends(), inputs.receives(), [&](int rank, std::byte* to) { move.pack_input(rank, in, to); },
      [&](const Peers& peers) { move.unpack_inputs(peers.in, out); });
  if (!plan.shares()) return;
  call.bytes = CallInfo::part_of_another;
  const PackedSizes shares = move.share_sizes();
  group.exchange_packed(
      call, shares.sends(), shares.receives(), [&](int, std::byte* to) { move.pack_shares(out, to); },
      [&](const Peers& peers) { move.unpack_shares(peers.in, out); });
}

}  // namespace shardwise::detail
