// Moves as values: which mesh axes take part in a move, what it is called, how much each rank receives. What planner and
// executor share; nothing is instantiated per placement or per number of axes. Layer: placement.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/base/collective.hpp>
#include <shardwise/placement/box.hpp>
#include <shardwise/placement/placement.hpp>

namespace shardwise::detail {

// Meshes have at most so many axes where placements are values.
inline constexpr int max_axes = 8;

// Which axes take part in a move, and what it is called.
struct MoveKind {
  std::uint32_t axes = 0;  // bit a: ranks that differ on axis a exchange
  Collective collective = Collective::none;
  ReduceOp op = ReduceOp::sum;
  bool reduces = false;
  bool fills = false;  // a Partial is made: what a rank does not hold is zero
  bool changes = false;  // more than a copy of the own part
};

// From placements to placements on one mesh. Refers to lists that outlive it.
struct MoveView {
  const PlacementValue* from;
  const PlacementValue* to;
  const std::int64_t* mesh;
  int axes;

  // The part that ranks with this coordinate hold of the axis changes. An axis that stays as it is moves all the same
  // where an axis before it, whose share of the same dimension changes, cuts it out of another range.
  constexpr bool moves(int a) const {
    if (mesh[a] == 1) return false;
    if (from[a] != to[a]) return true;
    if (!from[a].is_split()) return false;
    for (int b = 0; b < a; ++b)
      if (from[b] != to[b] && mesh[b] > 1 && (from[b].is_split(from[a].dim) || to[b].is_split(from[a].dim)))
        return true;
    return false;
  }
};

// Ranks meet along the axes whose coordinate says who holds what is needed: what was sharded and is not kept as a term, and
// what is reduced. A replica is cut, and a term is made, by each rank alone: such axes never meet.
constexpr MoveKind move_kind(const MoveView& move) {
  MoveKind kind;
  bool gathers = false;
  bool exchanges = false;
  bool all_reduces = false;
  bool scatters = false;
  for (int a = 0; a < move.axes; ++a) {
    if (!move.moves(a)) continue;
    const PlacementValue& from = move.from[a];
    const PlacementValue& to = move.to[a];
    kind.changes = true;
    if (to.is_partial()) {
      kind.fills = true;
    } else if (from.is_partial()) {
      kind.axes |= 1u << a;
      kind.reduces = true;
      if (from.op != ReduceOp::avg) kind.op = from.op;
      (to.is_replicate() ? all_reduces : scatters) = true;
    } else if (!from.is_replicate()) {
      kind.axes |= 1u << a;
      (to.is_replicate() ? gathers : exchanges) = true;
    }
  }
  // Names of the special cases.
  if (all_reduces)
    kind.collective = Collective::all_reduce;
  else if (scatters)
    kind.collective = Collective::reduce_scatter;
  else if (exchanges)
    kind.collective = Collective::all_to_all;
  else if (gathers)
    kind.collective = Collective::all_gather;
  return kind;
}

template <std::size_t N>
constexpr MoveKind move_kind(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh) {
  return move_kind(MoveView{from.data(), to.data(), mesh.data(), static_cast<int>(N)});
}

// Reductions of an average are sums until they are divided by the ranks that were averaged over.
constexpr std::int64_t averaged_over(const MoveView& move) {
  std::int64_t n = 1;
  for (int a = 0; a < move.axes; ++a)
    if (move.from[a].is_partial() && move.from[a].op == ReduceOp::avg && !move.to[a].is_partial()) n *= move.mesh[a];
  return n;
}
template <std::size_t N>
constexpr std::int64_t averaged_over(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh) {
  return averaged_over(MoveView{from.data(), to.data(), mesh.data(), static_cast<int>(N)});
}

// A place in the mesh.
struct Coordinate {
  std::int64_t at[max_axes];

  constexpr std::int64_t& operator[](int a) { return at[a]; }
  constexpr std::int64_t operator[](int a) const { return at[a]; }
};

// The next coordinate in row-major order over the axes of `set`, the others unchanged; false when all were seen, and they
// are zero again.
constexpr bool next_in(std::uint32_t set, const std::int64_t* mesh, int axes, Coordinate& c) {
  for (int a = axes - 1; a >= 0; --a) {
    if ((set >> a & 1u) == 0) continue;
    if (++c[a] < mesh[a]) return true;
    c[a] = 0;
  }
  return false;
}

constexpr Coordinate cleared(Coordinate c, std::uint32_t set, int axes) {
  for (int a = 0; a < axes; ++a)
    if ((set >> a & 1u) != 0) c[a] = 0;
  return c;
}

// At most so many terms meet in one reduction, and so many ranks share one.
inline constexpr int max_sharers = 1024;

// One move as one rank sees it: who holds what it needs, and what it is to do.
//
// Every source piece is read where it is nearest: at the rank that differs from this one on the fewest axes, which of the
// replicas of a piece is always the one with this rank's own coordinates. So every replica serves its own row of the mesh
// alone. Of ranks that want the same sum, those that hold a term of a piece share its reduction and store the result in the
// outputs of all: no term leaves its rank twice.
class MovePlan {
 public:
  constexpr MovePlan(const MoveView& move, const std::int64_t* me, const Extents& global)
      : MovePlan(move, move_kind(move), me, global) {}
  constexpr MovePlan(const MoveView& move, const MoveKind& kind, const std::int64_t* me, const Extents& global)
      : move_(move), global_(global), kind_(kind), wanted_(box_of(move.to, move.mesh, me, move.axes, global)) {
    for (int a = 0; a < max_axes; ++a) me_[a] = a < move.axes ? me[a] : 0;
    std::int64_t replicas = 1;
    std::int64_t terms = 1;
    for (int a = 0; a < move_.axes; ++a) {
      if ((kind_.axes >> a & 1u) == 0) {
        // A value becomes the term of the first rank.
        if (move.from[a].is_replicate() && move.to[a].is_partial() && me_[a] != 0) empty_handed_ = true;
        continue;
      }
      const std::uint32_t bit = 1u << a;
      (move.from[a].is_partial() ? terms_ : sources_) |= bit;
      if (move.from[a].is_partial()) terms *= move.mesh[a];
      if (!move.to[a].is_replicate()) continue;
      replicas_ |= bit;
      replicas *= move.mesh[a];
    }
    term_count_ = terms;
    shares_ = kind_.reduces && replicas > 1;
    if (shares_) replica_count_ = replicas;
  }

  constexpr const MoveKind& kind() const { return kind_; }
  constexpr const MoveView& view() const { return move_; }
  constexpr const Box& wanted() const { return wanted_; }
  constexpr bool shares() const { return shares_; }
  constexpr bool shares_in_place() const { return shares_ && replica_count_ <= max_sharers; }
  constexpr std::int64_t terms() const { return term_count_; }
  constexpr std::int64_t replicas() const { return replica_count_; }

  // Ranks of a group are numbered row-major over the axes that take part.
  constexpr int group_rank(const Coordinate& c) const {
    std::int64_t r = 0;
    for (int a = 0; a < move_.axes; ++a)
      if ((kind_.axes >> a & 1u) != 0) r = r * move_.mesh[a] + c[a];
    return static_cast<int>(r);
  }
  constexpr int group_rank() const { return group_rank(me_); }
  constexpr Coordinate coordinate_of(int rank_of_group) const {
    Coordinate c = me_;
    std::int64_t r = rank_of_group;
    for (int a = move_.axes; a-- > 0;) {
      if ((kind_.axes >> a & 1u) == 0) continue;
      c[a] = r % move_.mesh[a];
      r /= move_.mesh[a];
    }
    return c;
  }
  constexpr std::int64_t group_size() const {
    std::int64_t n = 1;
    for (int a = 0; a < move_.axes; ++a)
      if ((kind_.axes >> a & 1u) != 0) n *= move_.mesh[a];
    return n;
  }

  // The pieces of the source, one after the other: `c` is the coordinate of the first term of each.
  constexpr bool first_piece(Coordinate& c) const {
    c = cleared(me_, kind_.axes, move_.axes);
    return !empty_handed_;
  }
  // The one that this rank holds, or holds a term of.
  constexpr Coordinate own_piece() const { return cleared(me_, terms_, move_.axes); }
  constexpr bool next_piece(Coordinate& c) const { return next_in(sources_, move_.mesh, move_.axes, c); }
  constexpr Box held(const Coordinate& c) const { return box_of(move_.from, move_.mesh, c.at, move_.axes, global_); }
  constexpr bool next_term(Coordinate& c) const { return next_in(terms_, move_.mesh, move_.axes, c); }

  // The ranks whose outputs are equal, this one among them.
  constexpr Coordinate first_replica() const { return cleared(me_, replicas_, move_.axes); }
  constexpr bool next_replica(Coordinate& c) const { return next_in(replicas_, move_.mesh, move_.axes, c); }

  // What of a piece this rank itself puts into its output (and, where it shares, into its replicas').
  constexpr Box mine(const Coordinate& c, const Box& held) const {
    const Box piece = intersection(wanted_, held);
    if (!shares_) return piece;
    bool held_here = true;  // by one of the ranks that share
    bool held_by_me = true;
    for (int a = 0; a < move_.axes; ++a) {
      if ((sources_ >> a & 1u) == 0 || c[a] == me_[a]) continue;
      held_by_me = false;
      if ((replicas_ >> a & 1u) == 0) held_here = false;
    }
    if (held_here && !held_by_me) return none_of(piece);
    const std::uint32_t sharers = held_here ? replicas_ & terms_ : replicas_;
    std::int64_t k = 1;
    std::int64_t i = 0;
    for (int a = 0; a < move_.axes; ++a) {
      if ((sharers >> a & 1u) == 0) continue;
      k *= move_.mesh[a];
      i = i * move_.mesh[a] + me_[a];
    }
    return k == 1 ? piece : share(piece, i, k);
  }

  // Elements that come from other ranks: terms of what this rank reduces, and results of what its replicas reduce.
  constexpr std::int64_t received() const {
    std::int64_t total = 0;
    Coordinate c{};
    if (kind_.collective == Collective::none || !first_piece(c)) return 0;
    do {
      const Box box = held(c);
      const std::int64_t part = mine(c, box).size.elements();
      bool own = true;
      for (int a = 0; a < move_.axes; ++a)
        if ((sources_ >> a & 1u) != 0 && c[a] != me_[a]) own = false;
      total += part * (term_count_ - (own ? 1 : 0));
      if (shares_) total += intersection(wanted_, box).size.elements() - part;
    } while (next_piece(c));
    return total;
  }

 private:
  static constexpr Box none_of(Box box) {
    if (box.size.rank == 0) {  // one element
      box.size.rank = 1;
      box.offset.rank = 1;
    }
    box.size[0] = 0;
    return box;
  }

  // Part i of k: cut along the first dimension that is long enough.
  static constexpr Box share(Box part, std::int64_t i, std::int64_t k) {
    if (part.size.rank == 0) return i == 0 ? part : none_of(part);
    int best = 0;
    for (int d = 0; d < part.size.rank; ++d) {
      if (part.size[d] >= k) {
        best = d;
        break;
      }
      if (part.size[d] > part.size[best]) best = d;
    }
    const Range r = chunk({part.offset[best], part.size[best]}, k, i);
    part.offset[best] = r.offset;
    part.size[best] = r.size;
    return part;
  }

  MoveView move_;
  Coordinate me_{};
  Extents global_;
  MoveKind kind_;
  Box wanted_;
  std::uint32_t sources_ = 0;  // axes whose coordinates hold different pieces
  std::uint32_t terms_ = 0;  // axes whose coordinates hold terms of one sum
  std::uint32_t replicas_ = 0;  // axes whose coordinates want the same
  std::int64_t term_count_ = 1;
  std::int64_t replica_count_ = 1;
  bool shares_ = false;
  bool empty_handed_ = false;
};

}  // namespace shardwise::detail
