// Moves of parts that are no boxes (block-cyclic, strided), and moves to another mesh, between ranks that are GPUs: what a rank reads of
// another one is packed and placed by lists of positions, one list a dimension. Nothing waits. Layer: device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/stream_communicator.hpp>
#include <shardwise/cuda/copy.hpp>
#include <shardwise/device/stream_exchange.hpp>
#include <shardwise/placement/common_rows.hpp>
#include <shardwise/redistribute/packed_reads.hpp>

namespace shardwise::detail {

// Copies of what two tensors share. The lists of all of them go to the device at once.
class ListedCopies {
 public:
  static constexpr std::int64_t in_place = -1;
  // One side of a copy: a tensor that holds what its Holding says, or `packed` memory of an exchange.
  struct Side {
    std::byte* tensor = nullptr;
    std::int64_t packed = in_place;
  };

  explicit ListedCopies(std::size_t element) : element_(element) {}

  // What `held` shares with `wanted`, at the positions of `wanted` that `cut` leaves.
  void add(const Holding& held, const Side& from, const Holding& wanted, const Side& to, const Cut& cut = {}) {
    Copy copy{{}, {}, {}, from, to};
    copy.extents.rank = held.size.rank;
    std::int64_t stride_a = 1, stride_b = 1;
    for (int d = held.size.rank - 1; d >= 0; --d) {
      CommonRuns runs =
          d == cut.dim ? CommonRuns(held.dim[d], wanted.dim[d], cut.at) : CommonRuns(held.dim[d], wanted.dim[d]);
      CommonRuns::Run run{};
      copy.from[d] = static_cast<std::int64_t>(offsets_.size());
      std::int64_t n = 0;
      for (CommonRuns again = runs; again.next(run);) n += run.size;
      copy.to[d] = copy.from[d] + n;
      copy.extents[d] = n;
      for (CommonRuns again = runs; again.next(run);)
        for (std::int64_t i = 0; i < run.size; ++i) offsets_.push_back((run.a + i) * stride_a);
      while (runs.next(run))
        for (std::int64_t i = 0; i < run.size; ++i) offsets_.push_back((run.b + i) * stride_b);
      stride_a *= held.size[d];
      stride_b *= wanted.size[d];
    }
    if (copy.extents.elements() > 0) copies_.push_back(copy);
  }

  void run(const StreamExchange& exchange, const cuda::StreamView& stream) const {
    if (copies_.empty()) return;
    const std::size_t bytes = offsets_.size() * sizeof(std::int64_t);
    const Buffer lists = device_buffer(bytes, stream);
    if (bytes > 0) {
      const Buffer pinned = pinned_buffer(bytes);
      std::memcpy(pinned.data(), offsets_.data(), bytes);
      copy_to_device(lists, pinned, bytes, stream);
    }
    const auto* const list = lists.as<std::int64_t>();
    const auto address = [&](const Side& side) {
      return side.tensor != nullptr ? side.tensor : exchange.packed(side.packed);
    };
    for (const Copy& c : copies_) {
      device::ListedCopy copy{};
      copy.rank = c.extents.rank;
      for (int d = 0; d < copy.rank; ++d) {
        copy.extents[d] = c.extents[d];
        copy.src_offsets[d] = c.source.tensor != nullptr ? list + c.from[d] : nullptr;
        copy.dst_offsets[d] = c.target.tensor != nullptr ? list + c.to[d] : nullptr;
      }
      copy.src = address(c.source);
      copy.dst = address(c.target);
      device::copy_listed(element_, copy, stream);
    }
  }

 private:
  struct Copy {
    Extents extents;
    std::int64_t from[max_rank];  // where the lists begin
    std::int64_t to[max_rank];
    Side source, target;
  };

  std::size_t element_;
  List<std::int64_t> offsets_;
  List<Copy> copies_;
};

// A move's reads, as PackedReads has them: what it has for others is packed and sent, what it receives of them added up and placed. Refers
// to nothing of the move once it is made. The same on all ranks of the group: their messages are.
class StreamReads {
 public:
  template <class Move>
  StreamReads(const Move& move, DType dtype, const void* in, void* out, const cuda::StreamView& stream)
      : dtype_(dtype), stream_(stream), op_(move.op()), divisor_(static_cast<int>(move.divisor())),
        exchange_(size_of(dtype), stream), packs_(size_of(dtype)), unpacks_(size_of(dtype)) {
    const Side source{static_cast<std::byte*>(const_cast<void*>(in))}, target{static_cast<std::byte*>(out)};
    const auto packed = [](std::int64_t where) { return Side{nullptr, where}; };
    const int me = move.group_rank();
    for (int r = 0; r < move.group_size(); ++r) {
      if (r == me) continue;
      move.seen_by(r, [&](const Move& theirs) {
        theirs.for_each_read([&](const Read& read) {
          for (std::int64_t t = 0; t < move.terms(); ++t)
            if (read.ranks[t] == me)
              packs_.add(read.held, source, theirs.wanted(), packed(exchange_.send_packed(r, read.elements)), read.cut);
        });
      });
    }
    move.for_each_read([&](const Read& read) {
      if (move.terms() == 1) {
        if (read.ranks[0] == me)
          packs_.add(read.held, source, move.wanted(), target, read.cut);
        else
          unpacks_.add(read.held, packed(exchange_.receive_packed(read.ranks[0], read.elements)), move.wanted(), target,
                       read.cut);
        return;
      }
      const auto sum = make_ref<Sum>();
      sum->elements = read.elements;
      for (std::int64_t t = 0; t < move.terms(); ++t) {
        if (read.ranks[t] != me) {
          sum->terms.push_back(exchange_.receive_packed(read.ranks[t], read.elements));
          continue;
        }
        sum->terms.push_back(exchange_.room_for(read.elements));
        packs_.add(read.held, source, move.wanted(), packed(sum->terms.back()), read.cut);
      }
      sum->where = exchange_.room_for(read.elements);
      unpacks_.add(read.held, packed(sum->where), move.wanted(), target, read.cut);
      sums_.push_back(sum);
    });
  }
  StreamReads(const StreamReads&) = delete;
  StreamReads& operator=(const StreamReads&) = delete;

  DType dtype() const { return dtype_; }
  // In two halves around the messages of one or several: as StreamExchange.
  void begin(List<StreamMessage>& sends, List<StreamMessage>& receives, std::int64_t each) {
    exchange_.allocate();
    packs_.run(exchange_, stream_);
    exchange_.begin(sends, receives, each);
  }
  void end() const {
    exchange_.end();
    for (const Ref<Sum>& sum : sums_) {
      List<const void*> terms;
      for (const std::int64_t where : sum->terms) terms.push_back(exchange_.packed(where));
      const device::BoxCopy box{1, {sum->elements}, {1}, {1}, nullptr, exchange_.packed(sum->where)};
      device::reduce_box(dtype_, box, terms.data(), static_cast<int>(terms.size()), -1, op_, divisor_, stream_);
    }
    unpacks_.run(exchange_, stream_);
  }

 private:
  using Side = ListedCopies::Side;
  struct Sum {
    List<std::int64_t> terms;
    std::int64_t elements;
    std::int64_t where;
  };

  DType dtype_;
  cuda::StreamView stream_;
  ReduceOp op_;
  int divisor_;
  StreamExchange exchange_;
  ListedCopies packs_, unpacks_;
  List<Ref<Sum>> sums_;
};

// The exchange of one move's reads. Ranks: all of the group.
template <StreamCommunicator Comm, class Move>
void exchange_reads_on_stream(const Comm& group, const Move& move, const CallInfo& call, DType dtype, const void* in,
                              void* out, const cuda::StreamView& stream) {
  StreamReads reads(move, dtype, in, out, stream);
  List<StreamMessage> sends, receives;
  reads.begin(sends, receives, 1);
  group.exchange_on_stream(call, {sends.data(), sends.size()}, {receives.data(), receives.size()});
  reads.end();
}

// What this rank has of `wanted` itself.
inline void copy_common_on_stream(const Holding& held, const void* in, const Holding& wanted, void* out,
                                  std::size_t element, const cuda::StreamView& stream) {
  ListedCopies copies(element);
  copies.add(held, {static_cast<std::byte*>(const_cast<void*>(in))}, wanted, {static_cast<std::byte*>(out)});
  copies.run(StreamExchange(element, stream), stream);
}

}  // namespace shardwise::detail
