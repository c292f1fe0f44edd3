// What two ranks share of a tensor as rows of runs inside both local tensors: the walk of a box, for products of index sets.
// Layer: placement.
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardwise/placement/index_set.hpp>

namespace shardwise::detail {

// Positions of one dimension of a local tensor; no dimension: all of the tensor.
struct Cut {
  int dim = -1;
  Range at;
};

// How many runs, from the first of a list on, are alike: of one length, and as far from one to the next in both tensors.
struct Steps {
  std::int64_t count = 0;
  std::int64_t size = 0;
  std::int64_t a = 0;
  std::int64_t b = 0;

  // Whether a run is the next one, the first of all being `first`.
  constexpr bool leads_to(const CommonRuns::Run& first, const CommonRuns::Run& run) const {
    return run.size == size && run.a == first.a + count * a && run.b == first.b + count * b;
  }
};

constexpr Steps steps_of(const CommonRuns::Run* runs, int count) {
  if (count < 2) return {count, count > 0 ? runs[0].size : 0, 0, 0};
  Steps steps{1, runs[0].size, runs[1].a - runs[0].a, runs[1].b - runs[0].b};
  while (steps.count < count && steps.leads_to(runs[0], runs[steps.count])) ++steps.count;
  return steps;
}

// The shared elements of two local tensors as rows: for every index of the outer dimensions, the same list of runs.
// Trailing dimensions that both hold alike are one contiguous unit with the dimension before them.
class CommonRows {
 public:
  // Runs are listed in blocks: a dimension may have as many as it has indices.
  static constexpr int block = 128;

  // Of b only what `cut` leaves.
  CommonRows(const Holding& a, const Holding& b, const Cut& cut = {})
      : a_(a), b_(b), cut_(cut), inner_(a.size.rank - 1), unit_(1), first_run_(1) {
    for (; inner_ >= 0; --inner_) {
      CommonRuns runs = runs_of(inner_);
      CommonRuns::Run run{};
      const bool any = runs.next(run);
      const bool alike = any && run.size == a.size[inner_] && run.size == b.size[inner_];
      first_run_ = run.size * unit_;
      if (!alike) break;
      unit_ = first_run_;
    }
    stride_a_[inner_ < 0 ? 0 : inner_] = stride_b_[inner_ < 0 ? 0 : inner_] = unit_;
    for (int d = inner_ - 1; d >= 0; --d) {
      stride_a_[d] = stride_a_[d + 1] * a.size[d + 1];
      stride_b_[d] = stride_b_[d + 1] * b.size[d + 1];
    }
  }

  // The length of the first run stands for all: whether they are worth a call each.
  std::int64_t first_run() const { return first_run_; }
  // From a row of `a` to the next one, as a rule; 0 where there is one row.
  std::int64_t row_stride() const { return inner_ > 0 ? stride_a_[inner_ - 1] : 0; }

  // Calls row(runs, count, offset in a, offset in b) for rows of the outer dimensions; runs and offsets are in elements. A row that
  // takes them gets the steps between the runs, too: more runs than are listed, where all of these are alike.
  template <class Row>
  void for_each(Row&& row) const {
    CommonRuns::Run list[block];
    if (inner_ < 0) {
      list[0] = {0, 0, unit_};
      outer(inner_, 0, 0, list, 1, {}, row);
      return;
    }
    CommonRuns runs = runs_of(inner_);
    CommonRuns::Run run{};
    const auto next = [&] {
      if (!runs.next(run)) return false;
      run = {run.a * unit_, run.b * unit_, run.size * unit_};
      return true;
    };
    bool more = next();
    while (more) {
      int count = 0;
      for (; more && count < block; more = next()) list[count++] = run;
      Steps steps = steps_of(list, count);
      if constexpr (takes_steps<Row>)
        if (steps.count == count && count > 1)
          for (; more && steps.leads_to(list[0], run); more = next()) ++steps.count;
      outer(0, 0, 0, list, count, steps, row);
    }
  }

 private:
  template <class Row>
  static constexpr bool takes_steps =
      std::is_invocable_v<Row&, const CommonRuns::Run*, int, std::int64_t, std::int64_t, const Steps&>;

  CommonRuns runs_of(int d) const {
    return d == cut_.dim ? CommonRuns(a_.dim[d], b_.dim[d], cut_.at) : CommonRuns(a_.dim[d], b_.dim[d]);
  }

  template <class Row>
  void outer(int d, std::int64_t at_a, std::int64_t at_b, const CommonRuns::Run* list, int count, const Steps& steps,
             Row& row) const {
    if (d == inner_) {
      if constexpr (takes_steps<Row>)
        row(list, count, at_a, at_b, steps);
      else
        row(list, count, at_a, at_b);
      return;
    }
    CommonRuns runs = runs_of(d);
    CommonRuns::Run run{};
    while (runs.next(run))
      for (std::int64_t i = 0; i < run.size; ++i)
        outer(d + 1, at_a + (run.a + i) * stride_a_[d], at_b + (run.b + i) * stride_b_[d], list, count, steps, row);
  }

  const Holding& a_;
  const Holding& b_;
  Cut cut_;
  int inner_;
  std::int64_t unit_;
  std::int64_t first_run_;
  std::int64_t stride_a_[max_rank];
  std::int64_t stride_b_[max_rank];
};

}  // namespace shardwise::detail
