// What one rank does in a move: it copies or reduces what it wants out of the local tensors of others, wherever they lie.
// Over values, without communication. Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/base/dtype.hpp>
#include <shardwise/placement/move.hpp>
#include <shardwise/redistribute/box_copy.hpp>

namespace shardwise::detail {

// The local tensors that a move reads: one a rank of the group, or the same one whoever is asked.
struct Inputs {
  const std::byte* const* by_rank = nullptr;
  const std::byte* one = nullptr;

  const std::byte* operator[](int rank) const { return one != nullptr ? one : by_rank[rank]; }
};

// Does this rank's work: copies or reduces its share of every piece into the outputs, which all hold the wanted box. Packed
// inputs are what is wanted of them and no more.
template <class Type>
void run(const MovePlan& plan, Type dtype, const Inputs& in, std::byte* const* outputs, int output_count, bool shared,
         bool packed = false) {
  Coordinate c;
  if (plan.wanted().empty() || !plan.first_piece(c)) return;
  do {
    const Box whole = plan.held(c);
    const Box piece = shared ? plan.mine(c, whole) : intersection(plan.wanted(), whole);
    if (piece.empty()) continue;
    const Box& held = packed ? piece : whole;
    if (!plan.kind().reduces) {
      copy_box(piece, held, in[plan.group_rank(c)], plan.wanted(), outputs[0], size_of(dtype));
      continue;
    }
    const std::byte* terms[max_ranks_reduced];
    int count = 0;
    Coordinate term = c;
    do terms[count++] = in[plan.group_rank(term)];
    while (plan.next_term(term));
    reduce_box(dtype, piece, held, terms, count, plan.wanted(), outputs, output_count, plan.kind().op);
  } while (plan.next_piece(c));
}

inline void fill_zero(const MovePlan& plan, DType dtype, void* out) {
  if (plan.kind().fills && !plan.wanted().empty())
    std::memset(out, 0, static_cast<std::size_t>(plan.wanted().size.elements()) * size_of(dtype));
}

// Each rank fills its own output from everybody's input.
template <class Type>
void pull(const MovePlan& plan, Type dtype, const Inputs& in, void* out) {
  std::byte* outputs[1] = {static_cast<std::byte*>(out)};
  run(plan, dtype, in, outputs, 1, false);
}

// Ranks with equal outputs share the reduction: each does a part and stores it in all their outputs.
template <class Type>
void pull_shared(const MovePlan& plan, Type dtype, const Inputs& in, std::byte* const* out) {
  std::byte* outputs[max_sharers];
  int count = 0;
  Coordinate c = plan.first_replica();
  do outputs[count++] = out[plan.group_rank(c)];
  while (plan.next_replica(c));
  run(plan, dtype, in, outputs, count, true);
}

// The same where no rank writes another's memory, in two meetings: each reduces its part into its own output, ...
template <class Type>
void pull_share(const MovePlan& plan, Type dtype, const Inputs& in, void* out) {
  std::byte* outputs[1] = {static_cast<std::byte*>(out)};
  run(plan, dtype, in, outputs, 1, true);
}

// ... then reads the parts of the others out of theirs.
template <class = void>
void pull_shares_of_others(const MovePlan& plan, const Extents& global, DType dtype, const Inputs& outs, void* out) {
  Coordinate replica = plan.first_replica();
  do {
    const int rank = plan.group_rank(replica);
    if (rank == plan.group_rank()) continue;
    const MovePlan theirs(plan.view(), plan.kind(), replica.at, global);
    Coordinate c;
    if (!theirs.first_piece(c)) continue;
    do {
      const Box part = theirs.mine(c, theirs.held(c));
      if (!part.empty())
        copy_box(part, plan.wanted(), outs[rank], plan.wanted(), static_cast<std::byte*>(out), size_of(dtype));
    } while (theirs.next_piece(c));
  } while (plan.next_replica(replica));
}

// Fills the output with what this rank itself holds of it, and zero.
template <class = void>
void pull_own(const MovePlan& plan, const std::int64_t* me, const Extents& global, DType dtype, const void* in,
              void* out) {
  if (plan.wanted().empty()) return;
  std::memset(out, 0, static_cast<std::size_t>(plan.wanted().size.elements()) * size_of(dtype));
  const MoveView& view = plan.view();
  const Box held = box_of(view.from, view.mesh, me, view.axes, global);
  const Box piece = intersection(plan.wanted(), held);
  Coordinate unused;
  if (!piece.empty() && plan.first_piece(unused))
    copy_box(piece, held, static_cast<const std::byte*>(in), plan.wanted(), static_cast<std::byte*>(out),
             size_of(dtype));
}

}  // namespace shardwise::detail
