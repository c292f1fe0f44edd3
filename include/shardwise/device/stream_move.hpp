// StreamMove: a move between ranks that are GPUs, over values. What is one of NCCL's collectives as it lies goes as that; the rest is
// one exchange of box intersections, whose terms are added up where they are unpacked. Nothing waits. Layer: device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/comm/stream_communicator.hpp>
#include <shardwise/device/stream_exchange.hpp>
#include <shardwise/redistribute/packed_move.hpp>

namespace shardwise::detail {

// data /= by, in the order of the stream: as the host divides the sums of an average.
inline void divide_on_stream(DType dtype, void* data, std::int64_t n, std::int64_t by, const cuda::StreamView& stream) {
  if (by == 1 || n == 0) return;
  device::BoxCopy box{1, {n}, {1}, {1}, data, data};
  const void* terms[] = {data};
  device::reduce_box(dtype, box, terms, 1, 0, ReduceOp::sum, static_cast<int>(by), stream);
}

class StreamMove {
 public:
  // Refers to the plan and the sizes.
  StreamMove(const MovePlan& plan, const Extents& global, DType dtype, const void* in, void* out,
             const cuda::StreamView& stream)
      : plan_(plan), parts_(plan, global, dtype), dtype_(dtype), in_(static_cast<const std::byte*>(in)),
        out_(static_cast<std::byte*>(out)), stream_(stream), divisor_(averaged_over(plan.view())) {}

  // Without other ranks.
  void alone() const {
    fill_zero();
    Coordinate c;
    if (plan_.wanted().empty() || (plan_.kind().changes && !plan_.first_piece(c))) return;
    const Box held = plan_.kind().changes ? plan_.held(c) : plan_.wanted();
    const Walk w = walk(intersection(plan_.wanted(), held), held, plan_.wanted());
    if (w.empty || in_ == out_) return;
    const device::BoxCopy box = box_copy(w, in_, out_, element());
    device::copy_boxes(element(), &box, 1, stream_);
  }

  // Ranks: all of the group. `call`: what errors and traces are told.
  template <StreamCommunicator Comm>
  void over(const Comm& group, CallInfo call) {
    fill_zero();
    switch (native()) {
      case Native::all_reduce:
        group.all_reduce_on_stream(reduction(call), in_, out_, wanted_elements());
        return divide();
      case Native::reduce_scatter:
        group.reduce_scatter_on_stream(reduction(call), in_, out_, wanted_elements());
        return divide();
      case Native::all_gather: group.all_gather_on_stream(call, in_, out_, held_elements()); return;
      case Native::all_gather_packed: {
        const std::int64_t n = held_elements();
        const Buffer packed = device_buffer(bytes(n * plan_.group_size()), stream_);
        group.all_gather_on_stream(call, in_, packed.data(), n);
        unpack_gathered(packed.data(), n);
        return;
      }
      case Native::none: break;
    }
    {
      StreamExchange exchange(element(), stream_);
      List<Piece> pieces;
      add_inputs(exchange, pieces);
      exchange.run(group, call);
      reduce(exchange, pieces);
    }
    if (!plan_.shares()) return;
    call.bytes = CallInfo::part_of_another;
    StreamExchange exchange(element(), stream_);
    add_shares(exchange);
    exchange.run(group, call);
  }

  // The same in steps, for several moves in one exchange. Parts of it that are pending sums are in `pieces`.
  struct Piece {
    Box part, held;
    int own = -1;  // which of the terms is this rank's; -1: none
    List<std::int64_t> terms;  // where they are packed
  };
  void fill_zero() const {
    if (plan_.kind().fills && !plan_.wanted().empty()) zero_device_memory(out_, bytes(wanted_elements()), stream_);
  }
  void add_inputs(StreamExchange& exchange, List<Piece>& pieces) const {
    const int me = plan_.group_rank();
    const Box own = plan_.held(plan_.own_piece());
    for (int r = 0; r < plan_.group_size(); ++r)
      if (r != me)
        if (const Box part = parts_.taken_of_me(parts_.plan_of(r)); !part.empty()) exchange.send(r, part, own, in_);
    Coordinate c;
    if (plan_.wanted().empty() || !plan_.first_piece(c)) return;
    do {
      const Box part = PackedMove::part_of(plan_, c);
      if (part.empty()) continue;
      if (plan_.kind().reduces) {
        pieces.push_back(piece_of(exchange, c, part));
      } else if (const int rank = plan_.group_rank(c); rank == me) {
        exchange.keep(part, own, in_, plan_.wanted(), out_);
      } else {
        exchange.receive(rank, part, plan_.wanted(), out_);
      }
    } while (plan_.next_piece(c));
  }
  void reduce(const StreamExchange& exchange, const List<Piece>& pieces) const {
    List<const void*> terms;
    for (const Piece& piece : pieces) {
      terms.clear();
      for (const std::int64_t where : piece.terms) terms.push_back(exchange.packed(where));
      const device::BoxCopy box = box_copy(walk(piece.part, piece.held, plan_.wanted()), in_, out_, element());
      device::reduce_box(dtype_, box, terms.data(), static_cast<int>(terms.size()), piece.own, plan_.kind().op,
                         static_cast<int>(divisor_), stream_);
    }
  }
  // Of a sum that several ranks want, each has reduced its share.
  void add_shares(StreamExchange& exchange) const {
    parts_.for_each_other_replica([&](int rank, const MovePlan& theirs) {
      PackedMove::for_each_share(plan_, [&](const Box& part) { exchange.send(rank, part, plan_.wanted(), out_); });
      PackedMove::for_each_share(theirs, [&](const Box& part) { exchange.receive(rank, part, plan_.wanted(), out_); });
    });
  }
  bool shares() const { return plan_.shares(); }

 private:
  enum class Native : std::uint8_t { none, all_reduce, reduce_scatter, all_gather, all_gather_packed };

  std::size_t element() const { return size_of(dtype_); }
  std::size_t bytes(std::int64_t elements) const { return static_cast<std::size_t>(elements) * element(); }
  std::int64_t wanted_elements() const { return plan_.wanted().size.elements(); }
  std::int64_t held_elements() const { return plan_.held(plan_.own_piece()).size.elements(); }
  void divide() const {
    if (plan_.terms() != divisor_) divide_on_stream(dtype_, out_, wanted_elements(), divisor_, stream_);
  }
  // NCCL averages by itself where every term counts.
  CallInfo reduction(CallInfo call) const {
    if (divisor_ != 1 && divisor_ == plan_.terms()) call.op = ReduceOp::avg;
    return call;
  }

  // Every axis whose ranks meet goes from a kind of placement to a kind.
  template <class F>
  bool all_axes(F&& f) const {
    const MoveView& view = plan_.view();
    for (int a = 0; a < view.axes; ++a)
      if ((plan_.kind().axes >> a & 1u) != 0 && !f(view.from[a], view.to[a])) return false;
    return true;
  }
  // The same on all ranks of the group: it depends on sizes that they share.
  Native native() const {
    if (plan_.kind().fills || plan_.wanted().empty()) return Native::none;
    const Box own = plan_.held(plan_.own_piece());
    switch (plan_.kind().collective) {
      case Collective::all_reduce: {
        const bool plain =
            all_axes([](const auto& from, const auto& to) { return from.is_partial() && to.is_replicate(); });
        return plain && own.size == plan_.wanted().size ? Native::all_reduce : Native::none;
      }
      case Collective::reduce_scatter: {
        if (!all_axes([](const auto& from, const auto& to) { return from.is_partial() && !to.is_replicate(); }))
          return Native::none;
        const std::int64_t n = wanted_elements();
        for (int r = 0; r < plan_.group_size(); ++r) {
          const Box part = parts_.taken_of_me(parts_.plan_of(r));
          const Walk w = walk(part, own, part);
          if (part.size.elements() != n || w.rank != 1 || w.start_a != r * n) return Native::none;
        }
        return Native::reduce_scatter;
      }
      case Collective::all_gather: {
        if (!all_axes([](const auto& from, const auto& to) { return !from.is_partial() && to.is_replicate(); }))
          return Native::none;
        bool in_place = true;
        const std::int64_t n = own.size.elements();
        Coordinate c;
        plan_.first_piece(c);
        std::int64_t r = 0;
        do {
          const Box held = plan_.held(c);
          const Box part = intersection(plan_.wanted(), held);
          if (!(part.size == held.size) || held.size.elements() != n) return Native::none;
          const Walk w = walk(part, part, plan_.wanted());
          in_place = in_place && w.rank == 1 && w.start_b == r++ * n;
        } while (plan_.next_piece(c));
        return in_place ? Native::all_gather : Native::all_gather_packed;
      }
      default: return Native::none;
    }
  }
  void unpack_gathered(const std::byte* packed, std::int64_t n) const {
    List<device::BoxCopy> boxes;
    Coordinate c;
    plan_.first_piece(c);
    do {
      const Box part = plan_.held(c);
      boxes.push_back(box_copy(walk(part, part, plan_.wanted()), packed, out_, element()));
      packed += bytes(n);
    } while (plan_.next_piece(c));
    device::copy_boxes(element(), boxes.data(), static_cast<int>(boxes.size()), stream_);
  }

  Piece piece_of(StreamExchange& exchange, const Coordinate& first, const Box& part) const {
    Piece piece{part, plan_.held(first), -1, {}};
    Coordinate term = first;
    do {
      const int rank = plan_.group_rank(term);
      const auto t = static_cast<int>(piece.terms.size());
      if (rank != plan_.group_rank()) {
        piece.terms.push_back(exchange.receive_packed(rank, part.size.elements()));
      } else if (t < 64) {  // of more, one kernel takes the first so many
        piece.own = t;
        piece.terms.push_back(0);
      } else {
        piece.terms.push_back(exchange.keep_packed(part, piece.held, in_));
      }
    } while (plan_.next_term(term));
    return piece;
  }

  const MovePlan& plan_;
  PackedMove parts_;
  DType dtype_;
  const std::byte* in_;
  std::byte* out_;
  cuda::StreamView stream_;
  std::int64_t divisor_;
};

}  // namespace shardwise::detail
