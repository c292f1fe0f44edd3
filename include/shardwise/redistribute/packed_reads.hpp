// Moves of parts that are no boxes, and moves to another mesh, where ranks see nothing of each other but messages: a rank packs
// what each other one reads of it. Over values. Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/reduce.hpp>
#include <shardwise/placement/common_rows.hpp>
#include <shardwise/redistribute/packed_move.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// Of a part of the source, which one rank holds, or a term of it each of several: what another rank reads.
struct Read {
  const Holding& held;
  Cut cut;
  std::int64_t elements;
  const int* ranks;  // where these meet: as many as there are terms
};

// What a local tensor that holds `held` shares with `wanted`, one element after the other; `placed`: it holds `wanted` itself. And
// back from there to a tensor that holds `wanted`.
template <class = void>
void pack_common(const Holding& held, const void* from, const Holding& wanted, const Cut& cut, std::size_t element,
                 std::byte* to, bool placed = false) {
  const CommonRows rows(held, wanted, cut);
  const auto size = static_cast<std::int64_t>(element);
  rows.for_each([&](const CommonRuns::Run* runs, int count, std::int64_t a, std::int64_t b) {
    CommonRuns::Run packed[CommonRows::block];
    std::int64_t n = 0;
    for (int r = 0; r < count; n += runs[r++].size) packed[r] = {placed ? runs[r].b : runs[r].a, n, runs[r].size};
    copy_runs(packed, count, static_cast<const std::byte*>(from) + (placed ? b : a) * size, to, element,
              rows.first_run(), 0, false);
    to += n * size;
  });
}
template <class = void>
void unpack_common(const Holding& held, const std::byte* from, const Holding& wanted, const Cut& cut,
                   std::size_t element, void* to) {
  const CommonRows rows(held, wanted, cut);
  const auto size = static_cast<std::int64_t>(element);
  rows.for_each([&](const CommonRuns::Run* runs, int count, std::int64_t, std::int64_t b) {
    CommonRuns::Run packed[CommonRows::block];
    std::int64_t n = 0;
    for (int r = 0; r < count; n += runs[r++].size) packed[r] = {n, runs[r].b, runs[r].size};
    copy_runs(packed, count, from, static_cast<std::byte*>(to) + b * size, element, rows.first_run(), 0, false);
    from += n * size;
  });
}

// A move's reads, in messages. `Move` says what it reads (for_each_read), what any rank of the group does (seen_by), and who it is.
template <class Move>
class PackedReads {
 public:
  PackedReads(const Move& move, DType dtype) : move_(move), dtype_(dtype) {}

  PackedSizes sizes() const {
    PackedSizes sizes(static_cast<std::size_t>(move_.group_size()));
    move_.for_each_read([&](const Read& read) {
      for (std::int64_t t = 0; t < move_.terms(); ++t) sizes.from(read.ranks[t]) = bytes(read.elements);
    });
    for (int r = 0; r < move_.group_size(); ++r)
      of_me(r, [&](const Holding&, const Read& read) { sizes.to(r) = bytes(read.elements); });
    return sizes;
  }
  void pack(int rank, const void* in, std::byte* to) const {
    of_me(rank, [&](const Holding& wanted, const Read& read) {
      pack_common(read.held, in, wanted, read.cut, size_of(dtype_), to);
    });
  }
  void unpack(const std::byte* const* in, void* out) const {
    move_.for_each_read([&](const Read& read) {
      if (move_.terms() == 1)
        return unpack_common(read.held, in[read.ranks[0]], move_.wanted(), read.cut, size_of(dtype_), out);
      const void* terms[max_ranks_reduced];
      const auto count = static_cast<int>(move_.terms());
      for (int t = 0; t < count; ++t) terms[t] = in[read.ranks[t]];
      const Buffer sum(static_cast<std::size_t>(bytes(read.elements)));
      reduce_blocks(reduce_kernels_of(dtype_), sum.data(), terms, count, read.elements, move_.op(), false);
      unpack_common(read.held, sum.data(), move_.wanted(), read.cut, size_of(dtype_), out);
    });
  }

 private:
  std::int64_t bytes(std::int64_t elements) const { return elements * static_cast<std::int64_t>(size_of(dtype_)); }

  // What a rank reads of this one: once at most.
  template <class F>
  void of_me(int rank, F&& f) const {
    move_.seen_by(rank, [&](const Move& theirs) {
      theirs.for_each_read([&](const Read& read) {
        for (std::int64_t t = 0; t < move_.terms(); ++t)
          if (read.ranks[t] == move_.group_rank()) f(theirs.wanted(), read);
      });
    });
  }

  const Move& move_;
  DType dtype_;
};

// Ranks: all of the group.
template <ExchangesPacked Comm, class Move>
void exchange_reads(const Comm& group, const Move& move, const CallInfo& call, DType dtype, const void* in, void* out) {
  const PackedReads<Move> reads(move, dtype);
  const PackedSizes sizes = reads.sizes();
  move.prepare(out);
  group.exchange_packed(
      call, sizes.sends(), sizes.receives(), [&](int rank, std::byte* to) { reads.pack(rank, in, to); },
      [&](const Peers& peers) { reads.unpack(peers.in, out); });
}

}  // namespace shardwise::detail
