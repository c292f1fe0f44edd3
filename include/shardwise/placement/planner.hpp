// The planner: which collectives a redistribution takes, in which order, and what the busiest rank receives. Over values and
// constexpr; plan_redistribute (redistribute/) is its front for types. Does not communicate. Layer: placement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <shardwise/base/cost.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/text.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/placement/move.hpp>

namespace shardwise {

/// One step of a plan: ranks that differ on `axes` alone meet in one collective; `Collective::none` is local work.
struct RedistributeStep {
  detail::PlacementValue from[detail::max_axes];
  detail::PlacementValue to[detail::max_axes];
  int mesh_axes = 0;  ///< length of both lists
  std::uint32_t axes = 0;  ///< bit a: ranks that differ on axis a meet
  Collective collective = Collective::none;
  ReduceOp op = ReduceOp::sum;  ///< of a reduction
  std::int64_t ranks = 1;  ///< that meet in one group
  std::int64_t messages = 0;  ///< received by the busiest rank
  std::int64_t elements = 0;  ///< received by the busiest rank; 0 where no shape was given

  constexpr bool communicates() const { return collective != Collective::none; }
};

/// What a redistribution does, step by step. No step: nothing but a relabelling.
struct RedistributePlan {
  RedistributeStep steps[detail::max_axes];
  int count = 0;
  std::int64_t mesh[detail::max_axes] = {};
  bool axis_by_axis = false;  ///< the cost model chose fewer messages, though elements cross the network more than once
  double seconds = 0;  ///< as priced; 0 where no shape was given

  constexpr int size() const { return count; }
  constexpr const RedistributeStep& operator[](int i) const { return steps[i]; }
  constexpr const RedistributeStep* begin() const { return steps; }
  constexpr const RedistributeStep* end() const { return steps + count; }
  /// Steps that communicate.
  constexpr int collectives() const {
    int n = 0;
    for (const RedistributeStep& step : *this) n += step.communicates() ? 1 : 0;
    return n;
  }
  /// Received by the busiest rank of each step, all steps together.
  constexpr std::int64_t elements() const {
    std::int64_t n = 0;
    for (const RedistributeStep& step : *this) n += step.elements;
    return n;
  }
  constexpr std::int64_t messages() const {
    std::int64_t n = 0;
    for (const RedistributeStep& step : *this) n += step.messages;
    return n;
  }
};

/// What a plan is priced with.
struct PlanOptions {
  std::int64_t bytes_per_element = 4;
  CostModel cost = {};
};

namespace detail {

struct Received {
  std::int64_t messages = 0;
  std::int64_t elements = 0;
};

constexpr bool interleaved(const MoveView& view) {
  for (int a = 0; a < view.axes; ++a)
    if (view.from[a].is_interleaved() || view.to[a].is_interleaved()) return true;
  return false;
}

// How many chunks of a dimension, of those that ranks of the group hold of `range`, meet [first, end). Axes from `axis` on.
constexpr std::int64_t chunks_met(const MoveView& view, std::uint32_t group, const Coordinate& me, int dim, int axis,
                                  Range range, std::int64_t first, std::int64_t end) {
  if (range.size == 0 || range.offset >= end || range.offset + range.size <= first) return 0;
  while (axis < view.axes && !view.from[axis].is_split(dim)) ++axis;
  if (axis == view.axes) return 1;
  const auto below = [&](std::int64_t i) {
    return chunks_met(view, group, me, dim, axis + 1, chunk(range, view.mesh[axis], i), first, end);
  };
  if ((group >> axis & 1u) == 0) return below(me[axis]);
  const std::int64_t length = (range.size + view.mesh[axis] - 1) / view.mesh[axis];
  const std::int64_t from = first > range.offset ? (first - range.offset) / length : 0;
  const std::int64_t last =
      ((end < range.offset + range.size ? end : range.offset + range.size) - 1 - range.offset) / length;
  std::int64_t met = below(from);
  if (last > from) met += below(last);
  if (last > from + 1) met += (last - from - 1) * below(from + 1);  // those between are whole and alike
  return met;
}

constexpr std::int64_t rounds(std::int64_t ranks) {
  std::int64_t n = 0;
  for (std::int64_t reached = 1; reached < ranks; reached *= 2) ++n;
  return n;
}

// What one rank receives where parts are no boxes: each rank reduces for itself.
constexpr std::int64_t received_piecewise(const MovePlan& plan, const Coordinate& me, const Extents& global) {
  const MoveView& view = plan.view();
  const Holding wanted = holding_of(view.to, view.mesh, me.at, view.axes, global);
  std::int64_t total = 0;
  Coordinate c{};
  plan.first_piece(c);
  do {
    const std::int64_t n = common_elements(wanted, holding_of(view.from, view.mesh, c.at, view.axes, global));
    Coordinate term = c;
    do total += plan.group_rank(term) != plan.group_rank() ? n : 0;
    while (plan.next_term(term));
  } while (plan.next_piece(c));
  return total;
}

// What one rank receives, without a look at every piece: an estimate only of how ranks that share a reduction divide it.
constexpr Received received_by(const MoveView& view, const MoveKind& kind, const Coordinate& me,
                               const Extents& global) {
  const MovePlan plan(view, kind, me.at, global);
  Received r;
  Coordinate c{};
  if (kind.collective == Collective::none || !plan.first_piece(c)) return r;
  PlacementValue whole[max_axes];  // the source with all pieces of the group at hand
  PlacementValue shared[max_axes];  // with the pieces of the ranks that share
  bool alike = true;  // what is gathered or reduced is exchanged by none
  bool sharded = false;
  for (int a = 0; a < view.axes; ++a) {
    const bool in_group = (kind.axes >> a & 1u) != 0;
    const bool source = in_group && !view.from[a].is_partial();
    whole[a] = in_group ? replicate_value() : view.from[a];
    shared[a] = in_group && view.to[a].is_replicate() ? replicate_value() : view.from[a];
    sharded = sharded || source;
    if (source && !view.to[a].is_replicate()) alike = false;
  }
  if (sharded && kind.reduces) alike = false;
  const bool boxes = !interleaved(view);
  // Where a chunk that stays behind as a term was cut out of one that moves, the pieces make no box.
  if (kind.fills && plan.group_size() <= 4096) {
    r.elements = boxes ? plan.received() : received_piecewise(plan, me, global);
    r.messages = plan.group_size() - 1;
    return r;
  }
  const auto wanted_of = [&](const PlacementValue* list) {
    if (boxes) return intersection(plan.wanted(), box_of(list, view.mesh, me.at, view.axes, global)).size.elements();
    return common_elements(holding_of(view.to, view.mesh, me.at, view.axes, global),
                           holding_of(list, view.mesh, me.at, view.axes, global));
  };
  const std::int64_t sourced = wanted_of(whole);
  if (sourced == 0) return r;
  const std::int64_t own = wanted_of(view.from);
  const bool shares = plan.shares() && boxes;
  const std::int64_t n = shares ? plan.replicas() : 1;
  r.elements = shares ? ((plan.terms() + n - 1) * sourced - wanted_of(shared)) / n : plan.terms() * sourced - own;
  if (alike) {
    r.messages = kind.reduces ? rounds(plan.terms()) + rounds(n) : rounds(plan.group_size());
    return r;
  }
  std::int64_t pieces = 1;
  for (int d = 0; d < global.rank; ++d) {
    const std::int64_t first = boxes ? plan.wanted().offset[d] : 0;
    pieces *=
        chunks_met(view, kind.axes, me, d, 0, {0, global[d]}, first, boxes ? first + plan.wanted().size[d] : global[d]);
  }
  if (shares && own > 0) pieces = 1;  // the others reduce what they hold
  r.messages = pieces * plan.terms() - (own > 0 ? 1 : 0) + n - 1;
  return r;
}

// The rank that receives most: all are looked at on a small mesh, else those at the corners; or, at a glance, the first one
// and two that share little with themselves.
constexpr Received busiest(const MoveView& view, const MoveKind& kind, const Extents& global, bool glance) {
  std::int64_t ranks = 1;
  for (int a = 0; a < view.axes; ++a) ranks *= view.mesh[a];
  Received most;
  const auto look = [&](const Coordinate& me, bool exact) {
    Received r = received_by(view, kind, me, global);
    if (exact) r.elements = MovePlan(view, kind, me.at, global).received();
    if (r.messages > most.messages) most.messages = r.messages;
    if (r.elements > most.elements) most.elements = r.elements;
  };
  const std::uint32_t all = (1u << view.axes) - 1u;
  if (glance) {
    for (const std::uint32_t far : {0u, all & 0xaaaaaaaau, all & 0x55555555u}) {
      Coordinate me{};
      for (int a = 0; a < view.axes; ++a) me[a] = (far >> a & 1u) != 0 ? view.mesh[a] - 1 : 0;
      look(me, false);
    }
    return most;
  }
  const bool small = ranks <= 64;
  std::int64_t looked_at[max_axes] = {};
  for (int a = 0; a < view.axes; ++a)
    looked_at[a] = small ? view.mesh[a] : (kind.axes >> a & 1u) != 0 && view.mesh[a] > 1 ? 2 : 1;
  Coordinate corner{};
  do {
    Coordinate me = corner;
    for (int a = 0; a < view.axes && !small; ++a)
      if (corner[a] != 0) me[a] = view.mesh[a] - 1;
    look(me, small && kind.reduces && !interleaved(view));  // what is not reduced is no estimate
  } while (next_in(all, looked_at, view.axes, corner));
  return most;
}

// Sums and averages are one reduction. Others are not: the terms of a later axis are reduced before those of an axis before it.
constexpr bool alike(const PlacementValue& a, const PlacementValue& b) {
  const auto linear = [](ReduceOp op) { return op == ReduceOp::sum || op == ReduceOp::avg; };
  return a.op == b.op || (linear(a.op) && linear(b.op));
}
constexpr bool in_one_collective(const MoveView& view) {
  for (int a = 0; a < view.axes; ++a) {
    if (!view.from[a].is_partial() || view.to[a].is_partial()) continue;
    for (int b = a + 1; b < view.axes; ++b)
      if (view.from[b].is_partial() && !alike(view.from[a], view.from[b])) return false;
  }
  return true;
}

constexpr std::int64_t ranks_of(const MoveKind& kind, const MoveView& view) {
  std::int64_t n = 1;
  for (int a = 0; a < view.axes; ++a)
    if ((kind.axes >> a & 1u) != 0) n *= view.mesh[a];
  return n;
}

constexpr RedistributeStep step_of(const MoveView& view, const Extents* global) {
  const MoveKind kind = move_kind(view);
  RedistributeStep step;
  for (int a = 0; a < view.axes; ++a) {
    step.from[a] = view.from[a];
    step.to[a] = view.to[a];
  }
  step.mesh_axes = view.axes;
  step.axes = kind.axes;
  step.collective = kind.collective;
  if (kind.reduces) step.op = kind.op;
  step.ranks = ranks_of(kind, view);
  if (global != nullptr) {
    const Received r = busiest(view, kind, *global, false);
    step.messages = r.messages;
    step.elements = r.elements;
  }
  return step;
}

// Steps between the placements that axes have one after the other: those of `done` are where they are to be, the others
// where they were. What is cut locally is cut at once, what becomes a term does so at the end.
class StepSearch {
 public:
  constexpr StepSearch(const MoveView& view, std::uint32_t group, const Extents& global, const PlanOptions& options)
      : view_(view), global_(global), options_(options) {
    for (int a = 0; a < view.axes; ++a)
      if ((group >> a & 1u) != 0 && view.from[a] != view.to[a]) changing_[count_++] = a;
  }

  constexpr int count() const { return count_; }

  // The cheapest path from nothing done to all done, fewer steps where the price is equal. The order of what each
  // step brings to its target is written to `masks`; returns the number of steps.
  constexpr int cheapest(std::uint32_t* masks) const {
    const std::uint32_t all = (1u << count_) - 1u;
    double best[1u << most] = {};
    std::uint32_t last[1u << most] = {};
    for (std::uint32_t done = 1; done <= all; ++done) {
      bool found = false;
      // From the largest step to the smallest.
      for (std::uint32_t part = done; part != 0; part = (part - 1) & done) {
        const std::uint32_t before = done & ~part;
        if (before != 0 && last[before] == 0) continue;
        if (found && best[before] + options_.cost.seconds_per_collective >= best[done]) continue;  // whatever it moves
        const double price = price_of(before, done);
        if (price < 0) continue;
        if (found && best[before] + price >= best[done]) continue;
        found = true;
        best[done] = best[before] + price;
        last[done] = part;
      }
    }
    int steps = 0;
    for (std::uint32_t done = all; done != 0; done &= ~last[done]) {
      if (last[done] == 0) return 0;
      ++steps;
    }
    int i = steps;
    for (std::uint32_t done = all; done != 0; done &= ~last[done]) masks[--i] = done;
    return steps;
  }

  // The placements when the axes of `done` have arrived.
  constexpr void placements(std::uint32_t done, PlacementValue* list) const {
    const std::uint32_t all = (1u << count_) - 1u;
    for (int a = 0; a < view_.axes; ++a) {
      const bool early = view_.from[a].is_replicate() && !view_.to[a].is_partial();
      list[a] = done == all || (done != 0 && early) ? view_.to[a] : view_.from[a];
    }
    for (int i = 0; i < count_; ++i)
      if ((done >> i & 1u) != 0) list[changing_[i]] = view_.to[changing_[i]];
  }

  static constexpr int most = 4;

 private:
  // Negative: cannot be done in one collective.
  constexpr double price_of(std::uint32_t before, std::uint32_t after) const {
    PlacementValue from[max_axes];
    PlacementValue to[max_axes];
    placements(before, from);
    placements(after, to);
    const MoveView step{from, to, view_.mesh, view_.axes};
    if (!in_one_collective(step)) return -1;
    const Received r = busiest(step, move_kind(step), global_, true);
    return options_.cost.seconds_per_collective +
           options_.cost.seconds(static_cast<double>(r.messages),
                                 static_cast<double>(r.elements * options_.bytes_per_element));
  }

  MoveView view_;
  Extents global_;
  PlanOptions options_;
  int changing_[max_axes] = {};
  int count_ = 0;
};

// The plan of a move. Without a shape nothing is priced: one exchange, wherever one collective can do it.
constexpr RedistributePlan plan(const MoveView& view, const Extents* global, const PlanOptions& options) {
  RedistributePlan plan;
  for (int a = 0; a < view.axes; ++a) plan.mesh[a] = view.mesh[a];
  const MoveKind kind = move_kind(view);
  if (!kind.changes) return plan;
  const bool possible = in_one_collective(view);
  const bool priced = global != nullptr && options.cost.seconds_per_message > 0 && ranks_of(kind, view) > 2;
  if (!possible || priced) {
    const StepSearch search(view, kind.axes, global != nullptr ? *global : Extents(), options);
    if (search.count() > 1 && search.count() <= StepSearch::most) {
      std::uint32_t masks[StepSearch::most] = {};
      const int steps = search.cheapest(masks);
      if (steps > 1) {
        PlacementValue lists[2][max_axes];
        search.placements(0, lists[0]);
        for (int i = 0; i < steps; ++i) {
          search.placements(masks[i], lists[(i + 1) % 2]);
          plan.steps[plan.count++] = step_of({lists[i % 2], lists[(i + 1) % 2], view.mesh, view.axes}, global);
        }
        plan.axis_by_axis = possible;
      }
    }
  }
  if (plan.count == 0) plan.steps[plan.count++] = step_of(view, global);
  if (global != nullptr)
    plan.seconds = plan.collectives() * options.cost.seconds_per_collective +
                   options.cost.seconds(static_cast<double>(plan.messages()),
                                        static_cast<double>(plan.elements() * options.bytes_per_element));
  return plan;
}

}  // namespace detail

/// "all_to_all over axes 0, 1 (4 ranks): S(0)S(1) -> S(1)S(0), 1 message, 36 elements".
inline std::string to_string(const RedistributeStep& step) {
  std::string s = step.communicates() ? to_string(step.collective) : "local";
  if (step.communicates()) {
    if (step.collective == Collective::all_reduce || step.collective == Collective::reduce_scatter)
      s = detail::text(s, "(", to_string(step.op), ")");
    const char* separator = (step.axes & (step.axes - 1u)) == 0 ? " over axis " : " over axes ";
    for (int a = 0; a < step.mesh_axes; ++a) {
      if ((step.axes >> a & 1u) == 0) continue;
      s = detail::text(s, separator, a);
      separator = ", ";
    }
    s = detail::text(s, " (", step.ranks, " ranks)");
  }
  s += ": ";
  for (int a = 0; a < step.mesh_axes; ++a) s += to_string(step.from[a]);
  s += " -> ";
  for (int a = 0; a < step.mesh_axes; ++a) s += to_string(step.to[a]);
  if (step.messages > 0) {
    s = detail::text(s, ", ", step.messages, step.messages == 1 ? " message" : " messages");
    if (step.elements > 0) s = detail::text(s, ", ", step.elements, " elements");
  }
  return s;
}

/// A line a step, and one that says why there are several.
inline std::string to_string(const RedistributePlan& plan) {
  if (plan.size() == 0) return "nothing moves\n";
  std::string s;
  for (const RedistributeStep& step : plan) s += to_string(step) + "\n";
  if (plan.axis_by_axis)
    s += "axis by axis: fewer messages than one exchange, which costs more here than moving elements again\n";
  return s;
}

}  // namespace shardwise
