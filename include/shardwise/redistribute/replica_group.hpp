// ReplicaGroup: ranks of a target mesh that want the same of a tensor on another mesh, and who of them gets what of it from
// elsewhere, so that each element comes in once. Over values. Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstdint>

#include <shardwise/base/buffer.hpp>
#include <shardwise/placement/common_rows.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/redistribute/grid_view.hpp>

namespace shardwise::detail {

// A tensor to be read from another mesh: parts that are disjoint, terms of each part, and rows that hold all of them over again.
// A template, as what follows is, so that a unit that moves nothing to another mesh compiles none of it.
template <class Grid = GridView>
class BasicSource {
 public:
  struct Place {
    std::int64_t part = 0;
    std::int64_t term = 0;
    std::int64_t row = 0;
  };

  BasicSource(const Grid& grid, const Extents& global) : grid_(grid), global_(global) {
    for (int a = 0; a < grid_.axes; ++a) {
      const PlacementValue& p = grid_.placements[a];
      std::int64_t& count = p.is_partial() ? terms_ : p.is_split() ? parts_ : rows_;
      count *= grid_.shape[a];
    }
  }

  const Grid& grid() const { return grid_; }
  const Extents& global() const { return global_; }
  std::int64_t parts() const { return parts_; }
  std::int64_t terms() const { return terms_; }
  std::int64_t rows() const { return rows_; }
  bool reduces() const { return terms_ > 1; }

  Holding held(std::int64_t part) const {
    std::int64_t c[max_grid_axes] = {};
    coordinate({part, 0, 0}, c);
    return grid_.holding_at(c, global_);
  }
  std::int64_t position(Place place) const {
    std::int64_t c[max_grid_axes] = {};
    coordinate(place, c);
    return grid_.position(c);
  }
  Place place(std::int64_t position) const {
    std::int64_t c[max_grid_axes] = {};
    grid_.coordinate_at(position, c);
    Place place;
    for (int a = 0; a < grid_.axes; ++a) {
      std::int64_t& index = along(place, a);
      index = index * grid_.shape[a] + c[a];
    }
    return place;
  }

 private:
  std::int64_t& along(Place& place, int a) const {
    const PlacementValue& p = grid_.placements[a];
    return p.is_partial() ? place.term : p.is_split() ? place.part : place.row;
  }
  void coordinate(Place place, std::int64_t* c) const {
    for (int a = grid_.axes; a-- > 0;) {
      std::int64_t& index = along(place, a);
      c[a] = index % grid_.shape[a];
      index /= grid_.shape[a];
    }
  }

  Grid grid_;
  Extents global_;
  std::int64_t parts_ = 1;
  std::int64_t terms_ = 1;
  std::int64_t rows_ = 1;
};
using Source = BasicSource<>;

// Share i of n elements among k: sizes differ by one at most.
constexpr Range equal_share(std::int64_t n, std::int64_t k, std::int64_t i) {
  const std::int64_t each = n / k;
  const std::int64_t more = n % k;
  return {i * each + (i < more ? i : more), each + (i < more ? 1 : 0)};
}
// Whose share element e is.
constexpr std::int64_t sharer_of(std::int64_t n, std::int64_t k, std::int64_t e) {
  const std::int64_t each = n / k;
  const std::int64_t longer = (n % k) * (each + 1);  // elements in the shares that are longer
  return e < longer ? e / (each + 1) : n % k + (e - longer) / each;
}

template <class Grid = GridView>
class BasicReplicaGroup {
 public:
  using Source = BasicSource<Grid>;

  // A rank of the group that is on the source mesh too.
  struct Holder {
    typename Source::Place place;
    std::int64_t member = 0;
  };
  // What the group wants of a part of the source, and who of it has that part, or a term of it, itself.
  struct Piece {
    std::int64_t part;
    Holding held;
    std::int64_t elements;
    std::int64_t before = 0;  // elements of pieces before this one that none of the group has
    const Holder* first = nullptr;
    const Holder* last = nullptr;

    bool is_held() const { return first != last; }
    std::int64_t holders() const { return last - first; }
  };

  // The group of the rank at `coordinate` of the target: those that differ from it on `axes` (bit a: axis a) alone.
  BasicReplicaGroup(const Source& source, const Grid& to, std::uint32_t axes, const std::int64_t* coordinate)
      : source_(source), to_(to), axes_(axes), wanted_(to.holding_at(coordinate, source.global())) {
    for (int a = 0; a < to_.axes; ++a) {
      at_[a] = coordinate[a];
      if ((axes_ >> a & 1u) != 0) size_ *= to_.shape[a];
    }
    if (size_ > 1) {
      memory_ = Buffer(static_cast<std::size_t>(size_) * sizeof(Holder));
      list_ = memory_.as<Holder>();
    }
    for (std::int64_t m = 0; m < size_; ++m)
      if (const std::int64_t there = source_.grid().find(world_rank(m)); there >= 0)
        list_[holders_++] = {source_.place(there), m};
    std::sort(list_, list_ + holders_, [](const Holder& a, const Holder& b) {
      if (a.place.part != b.place.part) return a.place.part < b.place.part;
      return a.place.term != b.place.term ? a.place.term < b.place.term : a.member < b.member;
    });
  }
  BasicReplicaGroup(const BasicReplicaGroup&) = delete;
  BasicReplicaGroup& operator=(const BasicReplicaGroup&) = delete;

  std::int64_t size() const { return size_; }
  const Holding& wanted() const { return wanted_; }
  int world_rank(std::int64_t member) const {
    std::int64_t c[max_grid_axes];
    for (int a = to_.axes; a-- > 0;) {
      c[a] = at_[a];
      if ((axes_ >> a & 1u) == 0) continue;
      c[a] = member % to_.shape[a];
      member /= to_.shape[a];
    }
    return to_.world_rank(to_.position(c));
  }
  std::int64_t member(const std::int64_t* coordinate) const {
    std::int64_t m = 0;
    for (int a = 0; a < to_.axes; ++a)
      if ((axes_ >> a & 1u) != 0) m = m * to_.shape[a] + coordinate[a];
    return m;
  }

  // Whether all that it wants is in the group already.
  bool has_all() const {
    if (source_.reduces()) return wanted_.size.elements() == 0;
    std::int64_t n = 0;
    for (std::int64_t h = 0; h < holders_; ++h)
      if (h == 0 || list_[h].place.part != list_[h - 1].place.part)
        n += common_elements(source_.held(list_[h].place.part), wanted_);
    return n == wanted_.size.elements();
  }

  template <class F>
  void for_each_piece(F&& f) const {
    if (wanted_.size.elements() == 0) return;
    Piece piece{};
    const Holder* const end = list_ + holders_;
    piece.last = list_;
    for (piece.part = 0; piece.part < source_.parts(); ++piece.part) {
      piece.first = piece.last;
      while (piece.last != end && piece.last->place.part == piece.part) ++piece.last;
      piece.held = source_.held(piece.part);
      piece.elements = common_elements(piece.held, wanted_);
      if (piece.elements == 0) continue;
      f(static_cast<const Piece&>(piece));
      if (!piece.is_held()) piece.before += piece.elements;
    }
  }

  // Calls f(member, what it is to get of the piece from elsewhere), elements counted as rows of the piece come. What is held is
  // not got, but for the terms that others have of it: then those that hold one share the work.
  template <class F>
  void for_each_share(const Piece& piece, F&& f) const {
    if (piece.is_held()) {
      if (!source_.reduces()) return;
      for (std::int64_t h = 0; h < piece.holders(); ++h)
        f(piece.first[h].member, equal_share(piece.elements, piece.holders(), h));
      return;
    }
    if (size_ == 1) return f(std::int64_t{0}, Range{0, piece.elements});
    const std::int64_t all = missing();
    const std::int64_t end = piece.before + piece.elements;
    for (std::int64_t m = sharer_of(all, size_, piece.before); m < size_; ++m) {
      const Range share = equal_share(all, size_, m);
      if (share.offset >= end) return;
      const std::int64_t first = std::max(share.offset, piece.before);
      f(m, Range{first - piece.before, std::min(share.offset + share.size, end) - first});
    }
  }

  // A share as positions of one dimension of what is wanted, whole rows of the others: the bounds are rounded alike for all.
  struct Slice {
    Cut cut;
    std::int64_t elements;
  };
  Slice slice(const Piece& piece, Range share) const {
    if (share.size == piece.elements || share.size == 0) return {{}, share.size};
    // Along the first dimension that is long enough, as long runs are.
    const std::int64_t pieces = piece.is_held() ? piece.holders() : size_;
    std::int64_t length = 0;
    int d = 0;
    for (int i = 0; i < wanted_.size.rank && length < pieces; ++i)
      if (const std::int64_t n = common_count(piece.held.dim[i], wanted_.dim[i]); n > length) d = i, length = n;
    const std::int64_t row = piece.elements / length;
    const std::int64_t first = share.offset / row;
    const std::int64_t last = (share.offset + share.size) / row;
    const auto at = [&](std::int64_t n) { return nth_common(piece.held.dim[d], wanted_.dim[d], n); };
    const std::int64_t from = at(first);
    return {{d, {from, at(last) - from}}, (last - first) * row};
  }

 private:
  // Elements that none of the group has.
  std::int64_t missing() const {
    if (missing_ < 0) {
      std::int64_t n = 0;
      for_each_piece([&](const Piece& piece) { n = piece.is_held() ? n : piece.before + piece.elements; });
      missing_ = n;
    }
    return missing_;
  }

  const Source& source_;
  const Grid& to_;
  std::uint32_t axes_;
  Holding wanted_;
  std::int64_t at_[max_grid_axes] = {};
  std::int64_t size_ = 1;
  Holder one_;
  Buffer memory_;
  Holder* list_ = &one_;  // by part, term and member
  std::int64_t holders_ = 0;
  mutable std::int64_t missing_ = -1;
};
using ReplicaGroup = BasicReplicaGroup<>;

}  // namespace shardwise::detail
