// A move from one mesh to another as one rank sees it: what a rank needs is read from the ranks that hold it, in one exchange; or
// replicas of the target read a share each and gather the rest among themselves. Over values, without communication.
// Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include <shardwise/comm/call.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/redistribute/grid_view.hpp>
#include <shardwise/redistribute/meeting.hpp>
#include <shardwise/redistribute/remap.hpp>
#include <shardwise/redistribute/replica_group.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// One move as this rank sees it. Every element comes once to the ranks that want the same: to one of them, which the others
// then gather it from; or, in one step, to each of them by itself.
template <class Grid = GridView>
class BasicCrossMove {
 public:
  using Source = BasicSource<Grid>;
  using ReplicaGroup = BasicReplicaGroup<Grid>;
  using Place = typename Source::Place;
  using Holder = typename ReplicaGroup::Holder;
  using Piece = typename ReplicaGroup::Piece;
  using Slice = typename ReplicaGroup::Slice;

  // Between so many pairs of ranks the load of the replicas of a source is followed read by read.
  static constexpr std::int64_t followed = 1 << 14;

  BasicCrossMove(const Grid& from, const Grid& to, MeetingPlace place, int my_rank_there, int ranks_there,
                 const Extents& global, DType dtype, bool in_two_steps)
      : from_(from), to_(to), source_(from_, global), dtype_(dtype), place_(place), mine_(my_rank_there),
        ranks_there_(ranks_there) {
    for (int a = 0; a < to_.axes; ++a)
      if (to_.placements[a].is_replicate() && to_.shape[a] > 1) replicas_ |= 1u << a;
    if (in_two_steps) shared_ = replicas_;
    name_reduction();
    if (to_.coordinate == nullptr) return;
    group_.emplace(source_, to_, shared_, to_.coordinate);
    me_ = group_->member(to_.coordinate);
    if (from_.coordinate != nullptr)
      own_ = source_.place(from_.position(from_.coordinate));
    else if (source_.rows() > 1)
      take_turns(from_.ranks() * to_.ranks() <= followed);
  }
  BasicCrossMove(const BasicCrossMove&) = delete;
  BasicCrossMove& operator=(const BasicCrossMove&) = delete;

  std::int64_t divisor() const { return divisor_; }
  std::int64_t terms() const { return source_.terms(); }
  bool is_in_target() const { return group_.has_value(); }
  std::int64_t wanted_elements() const { return group_ ? group_->wanted().size.elements() : 0; }

  // Whether any rank gets anything from another one in the first step. The same on all ranks.
  bool crosses() const {
    if (source_.reduces() || shared_ == 0) return true;
    bool all = true;
    for_each_group(shared_,
                   [&](const std::int64_t* c) { all = all && ReplicaGroup(source_, to_, shared_, c).has_all(); });
    return !all;
  }
  CallInfo call() const {
    CallInfo info = call_as(collective_);
    const Received r = received();
    info.bytes = r.elements * static_cast<std::int64_t>(size_of(dtype_));
    if (collective_ != Collective::all_gather) info.messages = r.messages;
    return info;
  }

  // Elements of this rank's input, and the most that any rank puts in: the same on all ranks.
  std::int64_t source_elements() const {
    return from_.coordinate != nullptr ? from_.own(source_.global()).size.elements() : 0;
  }
  std::int64_t largest_source() const { return from_.largest(source_.global()); }

  // Fills this rank's output with what it holds of it itself, and zero.
  void pull_own(const void* in, void* out) const {
    if (wanted_elements() == 0) return;
    std::memset(out, 0, static_cast<std::size_t>(wanted_elements()) * size_of(dtype_));
    if (own_) copy_common(from_.own(source_.global()), in, group_->wanted(), out, size_of(dtype_));
  }

  // The first step: fills this rank's share of its output; in[r] is the input of rank r of those that meet.
  template <class In>
  void pull(const In& in, void* out) const {
    for_each_read([&](const Read& read) {
      const Holding& wanted = group_->wanted();
      if (!source_.reduces()) return copy_common(read.held, in[read.ranks[0]], wanted, out, size_of(dtype_), read.cut);
      const std::byte* terms[max_ranks_reduced];
      const auto count = static_cast<int>(source_.terms());
      for (int t = 0; t < count; ++t) terms[t] = in[read.ranks[t]];
      reduce_common(dtype_, read.held, terms, count, wanted, static_cast<std::byte*>(out), op_, read.cut);
    });
  }

  // Calls f(rank of those that meet, elements) for each message of the first step that this rank receives.
  template <class F>
  void for_each_message(F&& f) const {
    for_each_read([&](const Read& read) {
      for (std::int64_t t = 0; t < source_.terms(); ++t)
        if (read.ranks[t] != mine_) f(read.ranks[t], read.elements);
    });
  }

  // For messages: what any rank of those that meet does, and what this one does in the first step, of itself too.
  ReduceOp op() const { return op_; }
  const Holding& wanted() const { return group_->wanted(); }
  int group_rank() const { return mine_; }
  int group_size() const { return ranks_there_; }
  void prepare(void*) const {}
  template <class F>
  void seen_by(int rank, F&& f) const {
    const int world_rank = place_ == MeetingPlace::from ? from_.world_rank(rank)
                           : place_ == MeetingPlace::to ? to_.world_rank(rank)
                                                        : rank;
    seen_by_world_rank(world_rank, rank, f);
  }
  template <class F>
  void for_each_read(F&& f) const {
    if (!group_) return;
    int some[64];
    const Buffer memory = terms() > 64 ? Buffer(static_cast<std::size_t>(terms()) * sizeof(int)) : Buffer();
    int* const ranks = memory ? memory.as<int>() : some;
    group_->for_each_piece([&](const Piece& piece) {
      if (!source_.reduces() && piece.is_held()) {
        if (!own_ || own_->part != piece.part) return;
        ranks[0] = meeting_rank(*own_);
        return f(Read{piece.held, {}, piece.elements, ranks});
      }
      group_->for_each_share(piece, [&](std::int64_t member, Range share) {
        if (member != me_) return;
        const Slice slice = group_->slice(piece, share);
        if (slice.elements == 0) return;
        for (std::int64_t t = 0; t < terms(); ++t) ranks[t] = meeting_rank({piece.part, t, row_of(piece.part)});
        // A term of the group's own, this rank's before others'.
        for (const Holder* h = piece.first; h != piece.last; ++h)
          if (h == piece.first || h->place.term != h[-1].place.term || h->member == me_)
            ranks[h->place.term] = meeting_rank(h->place);
        f(Read{piece.held, slice.cut, slice.elements, ranks});
      });
    });
  }

  // The second step: along these axes of the target, none in one step.
  std::uint32_t gathered_axes() const { return shared_; }
  // Whether ranks of this group get anything in it.
  bool gathers() const {
    bool any = false;
    if (group_ && group_->size() > 1)
      group_->for_each_piece(
          [&](const Piece& piece) { any = any || source_.reduces() || piece.holders() < group_->size(); });
    return any;
  }
  CallInfo gather_call() const {
    CallInfo info = call_as(Collective::all_gather);
    const auto members = static_cast<std::size_t>(group_->size());
    const Buffer heard(members);
    std::fill_n(heard.data(), members, std::byte{0});
    std::int64_t elements = 0;
    bool held = false;
    for_each_gathered([&](const Piece& piece, std::int64_t member, const Slice& slice) {
      elements += slice.elements;
      heard.data()[member] = std::byte{1};
      held = held || piece.is_held();
    });
    info.bytes = elements * static_cast<std::int64_t>(size_of(dtype_));
    // Shares of one size are gathered by doubling.
    if (held) info.messages = std::count(heard.data(), heard.data() + members, std::byte{1});
    return info;
  }
  // in[m] is the output of rank m of the group as its first step left it.
  template <class In>
  void gather(const In& in, void* out) const {
    for_each_gathered([&](const Piece& piece, std::int64_t member, const Slice& slice) {
      copy_alike(piece.held, in[static_cast<int>(member)], group_->wanted(), out, size_of(dtype_), slice.cut);
    });
  }

  // The same in messages: each packs for another one what that one gets of it.
  void unpack_gathered(const std::byte* const* in, void* out) const {
    const Buffer memory(static_cast<std::size_t>(group_->size()) * sizeof(const std::byte*));
    const std::byte** const from = memory.as<const std::byte*>();
    std::copy(in, in + group_->size(), from);
    for_each_gathered([&](const Piece& piece, std::int64_t member, const Slice& slice) {
      unpack_common(piece.held, from[member], group_->wanted(), slice.cut, size_of(dtype_), out);
      from[member] += slice.elements * static_cast<std::int64_t>(size_of(dtype_));
    });
  }
  PackedSizes gather_sizes() const {
    PackedSizes sizes(static_cast<std::size_t>(group_->size()));
    const auto size = static_cast<std::int64_t>(size_of(dtype_));
    for_each_gathered([&](const Piece&, std::int64_t member, const Slice& slice) {
      sizes.from(static_cast<int>(member)) += slice.elements * size;
    });
    for (int m = 0; m < group_->size(); ++m)
      for_each_given(m, [&](const Piece&, const Slice& slice) { sizes.to(m) += slice.elements * size; });
    return sizes;
  }
  void pack_gathered(int member, const void* out, std::byte* to) const {
    for_each_given(member, [&](const Piece& piece, const Slice& slice) {
      pack_common(piece.held, out, group_->wanted(), slice.cut, size_of(dtype_), to, true);
      to += slice.elements * static_cast<std::int64_t>(size_of(dtype_));
    });
  }

 private:
  void name_reduction() {
    for (int a = 0; a < from_.axes; ++a) {
      if (!from_.placements[a].is_partial() || from_.shape[a] == 1) continue;
      if (from_.placements[a].op == ReduceOp::avg)
        divisor_ *= from_.shape[a];
      else
        op_ = from_.placements[a].op;
    }
    bool cut = shared_ != 0;
    for (int a = 0; a < to_.axes; ++a) cut = cut || to_.placements[a].is_split();
    collective_ = source_.reduces() ? cut ? Collective::reduce_scatter : Collective::all_reduce
                  : cut             ? Collective::all_to_all
                                    : Collective::all_gather;
  }

  int meeting_rank(const Place& place) const {
    const std::int64_t position = source_.position(place);
    if (place_ == MeetingPlace::from) return static_cast<int>(position);
    const int world_rank = from_.world_rank(position);
    return place_ == MeetingPlace::world ? world_rank : static_cast<int>(to_.find(world_rank));
  }

  // Calls f(the move as another rank sees it).
  template <class F>
  void seen_by_world_rank(int world_rank, int rank_there, F&& f) const {
    std::int64_t at[2][max_grid_axes];
    Grid views[2] = {from_, to_};
    for (int i = 0; i < 2; ++i) {
      const std::int64_t position = views[i].find(world_rank);
      if (position >= 0) views[i].coordinate_at(position, at[i]);
      views[i].coordinate = position >= 0 ? at[i] : nullptr;
    }
    f(static_cast<const BasicCrossMove&>(
        BasicCrossMove(views[0], views[1], place_, rank_there, ranks_there_, source_.global(), dtype_, shared_ != 0)));
  }

  // Calls f(piece, slice) for what a member of the group gets of this rank in the second step.
  template <class F>
  void for_each_given(int member, F&& f) const {
    if (member == me_) return;
    seen_by_world_rank(group_->world_rank(member), -1, [&](const BasicCrossMove& theirs) {
      theirs.for_each_gathered([&](const Piece& piece, std::int64_t giver, const Slice& slice) {
        if (giver == me_) f(piece, slice);
      });
    });
  }

  // Calls f(piece, member, slice) for what this rank gets of other ranks of its group in the second step.
  template <class F>
  void for_each_gathered(F&& f) const {
    if (!group_ || group_->size() == 1) return;
    group_->for_each_piece([&](const Piece& piece) {
      if (!source_.reduces() && piece.is_held()) {
        std::int64_t turn = me_;  // among those that do not hold it
        for (const Holder* h = piece.first; h != piece.last; ++h) {
          if (h->member == me_) return;
          if (h->member < me_) --turn;
        }
        return f(piece, piece.first[turn % piece.holders()].member, Slice{{}, piece.elements});
      }
      group_->for_each_share(piece, [&](std::int64_t member, Range share) {
        if (member == me_) return;
        const Slice slice = group_->slice(piece, share);
        if (slice.elements > 0) f(piece, member, slice);
      });
    });
  }

  Received received() const {
    Received total;
    for_each_message([&](int, std::int64_t elements) {
      total.elements += elements;
      ++total.messages;
    });
    return total;
  }

  // Calls f(coordinate of a rank) once for each group of ranks of the target that differ on `axes` alone.
  template <class F>
  void for_each_group(std::uint32_t axes, F&& f) const {
    Coordinate c{};
    do f(static_cast<const std::int64_t*>(c.at));
    while (next_in(((1u << to_.axes) - 1u) & ~axes, to_.shape, to_.axes, c));
  }

  // The row of the source in which this rank reads a part: its own, or that whose turn it is.
  std::int64_t row_of(std::int64_t part) const {
    if (own_) return own_->row;
    return rows_ ? rows_.as<std::int64_t>()[part] : turn_;
  }

  // A rank outside the source reads each part in the row that is read least so far: first by the ranks of the source, each in its
  // own row, then by the others in the order of their groups. Not followed: rows come in turns, along groups and within them.
  void take_turns(bool follow) {
    std::int64_t others = 0;
    for (int a = 0; a < to_.axes; ++a)
      if ((replicas_ >> a & 1u) == 0) others = others * to_.shape[a] + to_.coordinate[a];
    std::int64_t replica = 0;
    for (int a = 0; a < to_.axes; ++a)
      if ((replicas_ >> a & 1u) != 0) replica = replica * to_.shape[a] + to_.coordinate[a];
    turn_ = (replica + others) % source_.rows();
    if (!follow) return;
    const auto parts = static_cast<std::size_t>(source_.parts());
    const auto rows = static_cast<std::size_t>(source_.rows());
    rows_ = Buffer(parts * sizeof(std::int64_t));
    const Buffer loads(parts * rows * sizeof(std::int64_t));
    std::fill_n(loads.as<std::int64_t>(), parts * rows, 0);
    std::fill_n(rows_.as<std::int64_t>(), parts, turn_);
    for (const bool insiders : {true, false})
      for_each_group(shared_, [&](const std::int64_t* c) {
        const ReplicaGroup group(source_, to_, shared_, c);
        const bool here = std::equal(c, c + to_.axes, first_of_my_group().at);
        group.for_each_piece([&](const Piece& piece) {
          std::int64_t* const load = loads.as<std::int64_t>() + static_cast<std::size_t>(piece.part) * rows;
          group.for_each_share(piece, [&](std::int64_t member, Range share) {
            const std::int64_t there = from_.find(group.world_rank(member));
            if ((there >= 0) != insiders || share.size == 0) return;
            const std::int64_t row = insiders ? source_.place(there).row : std::min_element(load, load + rows) - load;
            load[row] += group.slice(piece, share).elements;
            if (here && member == me_) rows_.as<std::int64_t>()[piece.part] = row;
          });
        });
      });
  }
  Coordinate first_of_my_group() const {
    Coordinate c{};
    for (int a = 0; a < to_.axes; ++a) c[a] = (shared_ >> a & 1u) != 0 ? 0 : to_.coordinate[a];
    return c;
  }

  CallInfo call_as(Collective collective) const {
    CallInfo info;
    info.collective = collective;
    info.dtype = dtype_;
    info.op = op_;
    info.shape = source_.global();
    info.layout = fingerprint();
    return info;
  }
  std::uint64_t fingerprint() const {
    std::uint64_t h = 1099511628211ull;
    const auto mix = [&](std::int64_t v) { h = (h ^ static_cast<std::uint64_t>(v)) * 1099511628211ull; };
    for (const Grid* grid : {&from_, &to_}) {
      for (int a = 0; a < grid->axes; ++a) {
        mix(placement_code(grid->placements[a]));
        mix(grid->shape[a]);
      }
      for (const int r : *grid->world_ranks) mix(r);
    }
    mix(shared_);
    return h;
  }

  Grid from_;
  Grid to_;
  Source source_;
  DType dtype_;
  MeetingPlace place_;
  int mine_;  // this rank, where it meets the others
  int ranks_there_;
  std::uint32_t replicas_ = 0;  // axes of the target along which ranks want the same
  std::uint32_t shared_ = 0;  // of which these share the reading
  Collective collective_ = Collective::none;
  ReduceOp op_ = ReduceOp::sum;
  std::int64_t divisor_ = 1;
  std::optional<ReplicaGroup> group_;  // of this rank; none outside the target
  std::int64_t me_ = 0;  // in the group
  std::optional<Place> own_;  // of a rank of the target that is on the source mesh too
  std::int64_t turn_ = 0;
  Buffer rows_;  // by part, where they were followed
};
using CrossMove = BasicCrossMove<>;

}  // namespace shardwise::detail
