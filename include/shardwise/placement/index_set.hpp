// Index sets: which indices of a dimension a rank holds where one range does not tell (block-cyclic, strided, nested in
// each other): ordered runs that follow from the placements, never listed. A box is the case of one run. Layer: placement.
#pragma once

#include <cstdint>

#include <shardwise/placement/box.hpp>

namespace shardwise::detail {

// A mesh of at most so many axes may hold interleaved tensors.
inline constexpr int max_grid_axes = 8;

// One step from what is to be split to what a rank holds of it: positions in a list of `whole` indices, in increasing order.
struct SplitStep {
  PlacementKind kind = PlacementKind::shard;
  std::int64_t whole = 0;
  std::int64_t size = 0;  // positions that the rank holds
  std::int64_t first = 0;  // shard: its first position
  std::int64_t ranks = 1;  // block-cyclic: blocks are dealt to so many
  std::int64_t rank = 0;  // block-cyclic: of which it is this one
  std::int64_t block = 1;  // block-cyclic: length of a block; strided: of a piece
  std::int64_t pieces = 0;  // strided: whole ones; a shorter one may follow
  Range part;  // strided: what the rank holds of a whole piece,
  Range rest;  // and of the shorter one

  constexpr SplitStep() = default;
  constexpr SplitStep(PlacementValue p, std::int64_t n, std::int64_t k, std::int64_t i) : kind(p.kind), whole(n) {
    if (p.kind == PlacementKind::block_cyclic) {
      ranks = k;
      rank = i;
      block = p.block < n ? p.block : n > 0 ? n : 1;  // no product of a block and the ranks overflows
      const std::int64_t blocks = n / block;  // whole ones
      size = (blocks / k + (i < blocks % k ? 1 : 0)) * block + (i == blocks % k ? n % block : 0);
    } else if (p.kind == PlacementKind::strided) {
      const std::int64_t factor = p.block < n ? p.block : n > 0 ? n : 1;
      block = n > 0 ? (n + factor - 1) / factor : 1;
      pieces = n / block;
      part = chunk({0, block}, k, i);
      rest = chunk({0, n % block}, k, i);
      size = pieces * part.size + rest.size;
    } else {
      const Range mine = chunk({0, n}, k, i);
      first = mine.offset;
      size = mine.size;
    }
  }
};

// Consecutive indices from `index` on.
struct IndexRun {
  std::int64_t index;
  std::int64_t size;
};

class IndexSet {
 public:
  constexpr IndexSet() = default;
  constexpr explicit IndexSet(std::int64_t n) : size_(n) {}

  // Keeps what rank i of k gets of this set.
  constexpr void split(PlacementValue p, std::int64_t k, std::int64_t i) {
    if (k == 1) return;
    steps_[count_] = SplitStep(p, size_, k, i);
    size_ = steps_[count_++].size;
  }

  constexpr std::int64_t size() const { return size_; }

  // The index at a position and how many follow it one by one, at 0 <= position < size().
  constexpr IndexRun at(std::int64_t position) const {
    std::int64_t p = position;
    std::int64_t run = size_ - position;
    for (int s = count_ - 1; s >= 0; --s) {
      const SplitStep& step = steps_[s];
      std::int64_t left = step.size;
      if (step.kind == PlacementKind::block_cyclic) {
        const std::int64_t b = p / step.block;
        const std::int64_t in = p - b * step.block;
        left = step.block - in;
        p = (b * step.ranks + step.rank) * step.block + in;
      } else if (step.kind == PlacementKind::strided) {
        const std::int64_t held = step.pieces * step.part.size;
        const bool whole = p < held;
        const std::int64_t piece = whole ? p / step.part.size : step.pieces;
        const Range part = whole ? step.part : step.rest;
        const std::int64_t in = whole ? p - piece * part.size : p - held;
        left = part.size - in;
        p = piece * step.block + part.offset + in;
      } else {
        left -= p;
        p += step.first;
      }
      if (left < run) run = left;
    }
    return {p, run};
  }

  // The first position whose index is not below `index`; size() where there is none.
  constexpr std::int64_t lower_bound(std::int64_t index) const {
    std::int64_t p = index;
    for (int s = 0; s < count_; ++s) {
      const SplitStep& step = steps_[s];
      if (step.kind == PlacementKind::block_cyclic) {
        const std::int64_t b = p / step.block;
        const std::int64_t owner = b % step.ranks;
        const std::int64_t round = b / step.ranks;
        p = owner == step.rank ? round * step.block + (p - b * step.block)
                               : (owner < step.rank ? round : round + 1) * step.block;
      } else if (step.kind == PlacementKind::strided) {
        const std::int64_t piece = p / step.block < step.pieces ? p / step.block : step.pieces;
        const Range part = piece < step.pieces ? step.part : step.rest;
        const std::int64_t in = p - piece * step.block - part.offset;
        p = piece * step.part.size + (in < 0 ? 0 : in < part.size ? in : part.size);
      } else {
        p = p < step.first ? 0 : p - step.first;
      }
      if (p > step.size) p = step.size;
    }
    return p < size_ ? p : size_;
  }

 private:
  SplitStep steps_[max_grid_axes];
  int count_ = 0;
  std::int64_t size_ = 0;
};

// Indices that two sets share, as runs: position in a, position in b, length. Neighbours that continue each other in both are
// one run.
class CommonRuns {
 public:
  struct Run {
    std::int64_t a;
    std::int64_t b;
    std::int64_t size;
  };

  constexpr CommonRuns(const IndexSet& a, const IndexSet& b) : CommonRuns(a, b, {0, b.size()}) {}
  // Only at these positions of b.
  constexpr CommonRuns(const IndexSet& a, const IndexSet& b, Range at)
      : a_(&a), b_(&b), at_b_(at.offset), end_b_(at.offset + at.size), ahead_(find()) {}

  constexpr bool next(Run& run) {
    if (ahead_.size == 0) return false;
    run = ahead_;
    while ((ahead_ = find()).size > 0 && ahead_.a == run.a + run.size && ahead_.b == run.b + run.size)
      run.size += ahead_.size;
    return true;
  }

 private:
  constexpr Run find() {
    while (at_a_ < a_->size() && at_b_ < end_b_) {
      const IndexRun ra = a_->at(at_a_);
      IndexRun rb = b_->at(at_b_);
      if (rb.size > end_b_ - at_b_) rb.size = end_b_ - at_b_;
      const std::int64_t first = ra.index > rb.index ? ra.index : rb.index;
      const std::int64_t end_a = ra.index + ra.size;
      const std::int64_t end_b = rb.index + rb.size;
      if (end_a <= first) {
        at_a_ = a_->lower_bound(first);
      } else if (end_b <= first) {
        at_b_ = b_->lower_bound(first);
      } else {
        const std::int64_t end = end_a < end_b ? end_a : end_b;
        const Run run{at_a_ + first - ra.index, at_b_ + first - rb.index, end - first};
        at_a_ = run.a + run.size;
        at_b_ = run.b + run.size;
        return run;
      }
    }
    return {0, 0, 0};
  }

  const IndexSet* a_;
  const IndexSet* b_;
  std::int64_t at_a_ = 0;
  std::int64_t at_b_;
  std::int64_t end_b_;
  Run ahead_;
};

constexpr std::int64_t common_count(const IndexSet& a, const IndexSet& b) {
  CommonRuns runs(a, b);
  CommonRuns::Run run{};
  std::int64_t n = 0;
  while (runs.next(run)) n += run.size;
  return n;
}

// The position in b of the n-th index that both hold; the end of b where there are not so many.
constexpr std::int64_t nth_common(const IndexSet& a, const IndexSet& b, std::int64_t n) {
  CommonRuns runs(a, b);
  CommonRuns::Run run{};
  while (runs.next(run)) {
    if (n < run.size) return run.b + n;
    n -= run.size;
  }
  return b.size();
}

// What one rank holds: the product over the dimensions of an index set each.
struct Holding {
  IndexSet dim[max_rank];
  Extents size;
};

// What the rank at a coordinate of a grid of `axes` axes holds. Leftmost axis splits first.
constexpr Holding holding_of(const PlacementValue* placements, const std::int64_t* grid, const std::int64_t* coordinate,
                             int axes, const Extents& global) {
  Holding held;
  held.size.rank = global.rank;
  for (int d = 0; d < global.rank; ++d) held.dim[d] = IndexSet(global[d]);
  for (int a = 0; a < axes; ++a)
    if (placements[a].is_split()) held.dim[placements[a].dim].split(placements[a], grid[a], coordinate[a]);
  for (int d = 0; d < global.rank; ++d) held.size[d] = held.dim[d].size();
  return held;
}

template <std::size_t N>
constexpr Holding holding_of(const PlacementList<N>& placements, const Shape<N>& grid, const Shape<N>& coordinate,
                             const Extents& global) {
  static_assert(N <= max_grid_axes, "shardwise: [B3] block-cyclic and strided tensors lie on meshes of at most 8 axes");
  return holding_of(placements.data(), grid.data(), coordinate.data(), static_cast<int>(N), global);
}

// The elements that two ranks share.
constexpr std::int64_t common_elements(const Holding& a, const Holding& b) {
  std::int64_t n = 1;
  for (int d = 0; d < a.size.rank; ++d) n *= common_count(a.dim[d], b.dim[d]);
  return n;
}

}  // namespace shardwise::detail
