// What one rank holds whole, to every rank its part, where ranks see nothing of each other but messages. Over values.
// Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/placement/move.hpp>
#include <shardwise/redistribute/grid_view.hpp>
#include <shardwise/redistribute/packed_box.hpp>
#include <shardwise/redistribute/packed_move.hpp>
#include <shardwise/redistribute/remap.hpp>

namespace shardwise::detail {

// The parts as boxes of the whole: sent from where they lie, or packed piece by piece, and placed where they belong.
// A template, so that a unit that sends no messages compiles none of it.
template <class = void>
class DistributedBoxes {
 public:
  DistributedBoxes(const GridView& whole, const GridView& parts, const Extents& global, DType dtype, int root, int rank,
                   const void* in, void* out)
      : in_(static_cast<const std::byte*>(in)), out_(static_cast<std::byte*>(out)), root_(root),
        sizes_(static_cast<std::size_t>(parts.ranks())),
        boxes_(static_cast<std::size_t>(parts.ranks()) * sizeof(PackedBox)) {
    for (int r = 0; r < static_cast<int>(parts.ranks()); ++r) {
      std::int64_t at[max_grid_axes] = {};
      parts.coordinate_at(r, at);
      const MovePlan plan({whole.placements, parts.placements, parts.shape, parts.axes}, at, global);
      const Box all = plan.held(plan.own_piece());
      Coordinate unused;
      const bool has_part = !plan.wanted().empty() && plan.first_piece(unused);  // of a pending sum only the first has
      const std::int64_t bytes =
          has_part ? plan.wanted().size.elements() * static_cast<std::int64_t>(size_of(dtype)) : 0;
      new (&boxes_.as<PackedBox>()[r]) PackedBox(has_part ? plan.wanted() : all, all, size_of(dtype));
      if (rank == root) sizes_.to(r) = bytes;
      if (rank == r) sizes_.from(root) = bytes;
    }
  }

  const PackedSizes& sizes() const { return sizes_; }
  void pack(int rank, std::size_t at, std::size_t bytes, std::byte* to) const {
    boxes_.as<PackedBox>()[rank].pack(in_, at, bytes, to);
  }
  const std::byte* source(int rank) const { return boxes_.as<PackedBox>()[rank].in(in_); }
  std::byte* place(int rank) const { return rank == root_ ? out_ : nullptr; }

 private:
  const std::byte* in_;
  std::byte* out_;
  int root_;
  PackedSizes sizes_;
  Buffer boxes_;
};

// Fills `out`, `bytes` of it. Ranks: all of the group, whose ranks are those of the grid.
template <bool Interleaved, ExchangesPacked Comm>
void distribute_packed(const Comm& group, const GridView& whole, const GridView& parts, const Extents& global,
                       DType dtype, const CallInfo& call, const void* in, void* out, std::size_t bytes) {
  if constexpr (!Interleaved) {
    const DistributedBoxes<> boxes(whole, parts, global, dtype, call.root, group.rank(), in, out);
    if (bytes > 0 && boxes.sizes().receives()[static_cast<std::size_t>(call.root)] == 0) std::memset(out, 0, bytes);
    group.exchange_packed(call, boxes.sizes().sends(), boxes.sizes().receives(), boxes, [](const Peers&) {});
  } else {
    const auto with_part_of = [&](int rank, auto&& f) {
      std::int64_t at[max_grid_axes] = {};
      parts.coordinate_at(rank, at);
      GridView from = whole, to = parts;
      from.coordinate = to.coordinate = at;
      f(Remap(from, to, global, dtype));
    };
    PackedSizes sizes(static_cast<std::size_t>(group.size()));
    sizes.from(call.root) = static_cast<std::int64_t>(bytes);
    for (int r = 0; r < group.size() && group.rank() == call.root; ++r)
      with_part_of(r, [&](const Remap& part) {
        sizes.to(r) = part.wanted().size.elements() * static_cast<std::int64_t>(size_of(dtype));
      });
    group.exchange_packed(
        call, sizes.sends(), sizes.receives(),
        [&](int rank, std::byte* to) {
          with_part_of(rank, [&](const Remap& part) { part.pull(OneInput{static_cast<const std::byte*>(in)}, to); });
        },
        [&](const Peers& peers) {
          if (bytes > 0) std::memcpy(out, peers.in[call.root], bytes);
        });
  }
}

}  // namespace shardwise::detail
