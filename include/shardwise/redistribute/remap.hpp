// The executor for tensors that are no boxes (block-cyclic, strided) and for moves to another mesh: what a rank needs is read from
// the ranks that hold it, in at most one exchange. Over values; compiled once per type of communicator. Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// A tensor on a mesh, over values.
struct GridView {
  const PlacementValue* placements = nullptr;
  const std::int64_t* shape = nullptr;
  const std::int64_t* coordinate = nullptr;  // of this rank; null outside the mesh
  int axes = 0;
  const std::vector<int>* world_ranks = nullptr;  // row-major; needed for moves to another mesh

  std::int64_t ranks() const {
    std::int64_t n = 1;
    for (int a = 0; a < axes; ++a) n *= shape[a];
    return n;
  }
  std::int64_t position(const std::int64_t* c) const {
    std::int64_t r = 0;
    for (int a = 0; a < axes; ++a) r = r * shape[a] + c[a];
    return r;
  }
  // Where a rank of the world stands among those of the mesh; -1 outside.
  std::int64_t find(int world_rank) const {
    // As a rule ranks are listed in order.
    const auto guess = static_cast<std::size_t>(world_ranks->empty() ? 0 : world_rank - world_ranks->front());
    if (guess < world_ranks->size() && (*world_ranks)[guess] == world_rank) return static_cast<std::int64_t>(guess);
    for (std::size_t i = 0; i < world_ranks->size(); ++i)
      if ((*world_ranks)[i] == world_rank) return static_cast<std::int64_t>(i);
    return -1;
  }
  Holding holding(std::int64_t rank, const Extents& global) const {
    std::int64_t c[max_grid_axes] = {};
    for (int a = axes; a-- > 0; rank /= shape[a]) c[a] = rank % shape[a];
    return holding_of(placements, shape, c, axes, global);
  }
};

// Which ranks meet in a move to another mesh: those of the mesh that has all of the other's, or else the whole world.
enum class MeetingPlace : std::uint8_t { from, to, world };

inline MeetingPlace meeting_place(const GridView& from, const GridView& to) {
  const auto has_all = [](const GridView& a, const GridView& b) {
    if (a.ranks() < b.ranks()) return false;
    for (const int r : *b.world_ranks)
      if (a.find(r) < 0) return false;
    return true;
  };
  if (has_all(from, to)) return MeetingPlace::from;
  return has_all(to, from) ? MeetingPlace::to : MeetingPlace::world;
}

// What is left of a move to another mesh where every rank has what it needs.
enum class Relabelling : std::uint8_t { none, part, exact };

inline Relabelling relabelling(const GridView& from, const GridView& to, const Extents& global) {
  if (global.elements() == 0) return Relabelling::part;
  for (int a = 0; a < from.axes; ++a)
    if (from.placements[a].is_partial() && from.shape[a] > 1) return Relabelling::none;
  Relabelling found = Relabelling::exact;
  for (std::int64_t r = 0; r < to.ranks(); ++r) {
    const Holding wanted = to.holding(r, global);
    const std::int64_t n = wanted.size.elements();
    const std::int64_t own = from.find((*to.world_ranks)[static_cast<std::size_t>(r)]);
    if (own < 0) {
      if (n > 0) return Relabelling::none;
      continue;
    }
    const Holding held = from.holding(own, global);
    if (common_elements(held, wanted) != n) return Relabelling::none;
    if (held.size.elements() != n) found = Relabelling::part;
  }
  return found;
}

template <class Mesh>
GridView grid_view(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements) {
  static_assert(
      Mesh::ndim <= max_grid_axes,
      "shardwise::redistribute: [B3] block-cyclic and strided tensors, and moves to another mesh, take meshes of "
      "at most 8 axes");
  return {placements.data(), mesh.shape().data(), mesh.is_member() ? mesh.grid().coordinate.data() : nullptr,
          static_cast<int>(Mesh::ndim), &mesh.ranks()};
}

// One move as this rank sees it.
class Remap {
 public:
  // On one mesh. Ranks meet along the axes whose coordinate says who holds what is needed; they are numbered row-major over these.
  Remap(const GridView& from, const GridView& to, const Extents& global, DType dtype)
      : from_(from), to_(to), global_(global), dtype_(dtype) {
    for (int a = 0; a < from_.axes; ++a) me_[a] = from_.coordinate[a];
    for (int a = 0; a < from_.axes; ++a) {
      if (from_.shape[a] == 1 || !takes_part(a)) continue;
      changes_ = true;
      role_[a] = role_on_one_mesh(a);
      if (role_[a] != Role::fixed) axes_ |= 1u << a;
      if (to_.placements[a].is_partial() && !from_.placements[a].is_partial()) {
        fills_ = true;
        if (from_.placements[a].is_replicate() && me_[a] != 0) no_source_ = true;
      }
    }
    mine_ = group_rank(me_);
    wanted_ = holding_of(to_.placements, to_.shape, to_.coordinate, to_.axes, global_);
    name_reduction();
    collective_ = collective_on_one_mesh();
  }

  // To another mesh. Every rank that the two have takes part, the rest of the world too where that is the meeting place.
  Remap(const GridView& from, const GridView& to, MeetingPlace place, int my_rank_there, const Extents& global,
        DType dtype)
      : from_(from), to_(to), global_(global), dtype_(dtype), across_(true), place_(place), mine_(my_rank_there) {
    // Of the replicas of a source, a rank that holds one reads along its own coordinates; the others take turns.
    std::int64_t turn = to_.coordinate != nullptr ? to_.position(to_.coordinate) : 0;
    for (int a = 0; a < from_.axes; ++a) {
      if (from_.coordinate != nullptr) {
        me_[a] = from_.coordinate[a];
      } else {
        me_[a] = turn % from_.shape[a];
        turn /= from_.shape[a];
      }
      if (from_.shape[a] > 1 && !from_.placements[a].is_replicate())
        role_[a] = from_.placements[a].is_partial() ? Role::term : Role::part;
    }
    changes_ = true;
    no_source_ = to_.coordinate == nullptr;
    if (!no_source_) wanted_ = holding_of(to_.placements, to_.shape, to_.coordinate, to_.axes, global_);
    name_reduction();
    bool cut = false;
    for (int a = 0; a < to_.axes; ++a) cut = cut || to_.placements[a].is_split();
    collective_ = reduces_ ? cut ? Collective::reduce_scatter : Collective::all_reduce
                  : cut    ? Collective::all_to_all
                           : Collective::all_gather;
  }

  bool communicates() const { return collective_ != Collective::none; }
  bool is_local_copy() const { return !changes_; }
  std::uint32_t axes() const { return axes_; }
  const Holding& wanted() const { return wanted_; }
  std::int64_t divisor() const { return divisor_; }
  std::int64_t terms() const { return terms_; }

  CallInfo call() const {
    CallInfo info;
    info.collective = collective_;
    info.dtype = dtype_;
    info.op = op_;
    info.shape = global_;
    info.layout = fingerprint();
    const Received r = received();
    info.bytes = r.elements * static_cast<std::int64_t>(size_of(dtype_));
    if (collective_ != Collective::all_gather) info.messages = r.messages;
    return info;
  }

  // Elements of this rank's input, and the most that any rank puts in: the same on all ranks.
  std::int64_t source_elements() const {
    if (from_.coordinate == nullptr) return 0;
    return holding_of(from_.placements, from_.shape, from_.coordinate, from_.axes, global_).size.elements();
  }
  std::int64_t largest_source() const {
    // The first rank has the most, unless a later split of what pieces are cut from turns it around.
    std::int64_t largest = from_.holding(0, global_).size.elements();
    bool strided = false;
    for (int a = 0; a < from_.axes; ++a) strided = strided || from_.placements[a].kind == PlacementKind::strided;
    for (std::int64_t r = 1; strided && r < from_.ranks(); ++r) {
      const std::int64_t n = from_.holding(r, global_).size.elements();
      largest = n > largest ? n : largest;
    }
    return largest;
  }

  // Fills this rank's output with what it holds of it itself, and zero.
  void pull_own(const void* in, void* out) const {
    if (wanted_.size.elements() == 0 || (across_ && to_.coordinate == nullptr)) return;
    auto* target = static_cast<std::byte*>(out);
    std::memset(target, 0, static_cast<std::size_t>(wanted_.size.elements()) * size_of(dtype_));
    if (no_source_ || from_.coordinate == nullptr) return;
    copy_common(holding_of(from_.placements, from_.shape, from_.coordinate, from_.axes, global_),
                static_cast<const std::byte*>(in), wanted_, target, size_of(dtype_));
  }

  // Fills this rank's output; in[r] is the input of rank r of the group.
  template <class In>
  void pull(const In& in, void* out) const {
    if (wanted_.size.elements() == 0 || (across_ && no_source_)) return;
    auto* target = static_cast<std::byte*>(out);
    if (fills_) std::memset(target, 0, static_cast<std::size_t>(wanted_.size.elements()) * size_of(dtype_));
    for_each_source([&](const std::int64_t* c, const Holding& held) {
      if (!reduces_) return copy_common(held, in[group_rank(c)], wanted_, target, size_of(dtype_));
      const std::byte* terms[max_ranks_reduced];
      int count = 0;
      for_each_term(c, [&](int rank) { terms[count++] = in[rank]; });
      reduce_common(dtype_, held, terms, count, wanted_, target, op_);
    });
  }

 private:
  // What the coordinates of an axis are to a rank that looks for its sources: one that is fixed, the parts of a dimension, the
  // terms of a reduction.
  enum class Role : std::uint8_t { fixed, part, term };

  // An axis that stays as it is takes part where an axis before it, whose split of the same dimension changes, hands it other
  // indices. The ranks of an axis that does not take part never meet.
  bool takes_part(int a) const {
    const PlacementValue& from = from_.placements[a];
    if (!(from == to_.placements[a])) return true;
    if (!from.is_split()) return false;
    for (int b = 0; b < a; ++b)
      if (from_.shape[b] > 1 && !(from_.placements[b] == to_.placements[b]) &&
          (from_.placements[b].is_split(from.dim) || to_.placements[b].is_split(from.dim)))
        return true;
    return false;
  }

  // A term stays with its coordinate where the target is a term too.
  Role role_on_one_mesh(int a) const {
    if (to_.placements[a].is_partial()) return Role::fixed;
    if (from_.placements[a].is_split()) return Role::part;
    return from_.placements[a].is_partial() ? Role::term : Role::fixed;
  }

  void name_reduction() {
    std::int64_t terms = 1;
    for (int a = 0; a < from_.axes; ++a) {
      if (role_[a] != Role::term) continue;
      reduces_ = true;
      terms *= from_.shape[a];
      if (from_.placements[a].op == ReduceOp::avg)
        divisor_ *= from_.shape[a];
      else
        op_ = from_.placements[a].op;
    }
    terms_ = terms;
  }

  Collective collective_on_one_mesh() const {
    bool gathers = false, exchanges = false, all_reduces = false, scatters = false;
    for (int a = 0; a < from_.axes; ++a) {
      if ((axes_ >> a & 1u) == 0) continue;
      const bool whole = to_.placements[a].is_replicate();
      if (role_[a] == Role::term) (whole ? all_reduces : scatters) = true;
      if (role_[a] == Role::part) (whole ? gathers : exchanges) = true;
    }
    if (all_reduces) return Collective::all_reduce;
    if (scatters) return Collective::reduce_scatter;
    if (exchanges) return Collective::all_to_all;
    return gathers ? Collective::all_gather : Collective::none;
  }

  int group_rank(const std::int64_t* c) const {
    if (across_) {
      const std::int64_t position = from_.position(c);
      if (place_ == MeetingPlace::from) return static_cast<int>(position);
      const int world_rank = (*from_.world_ranks)[static_cast<std::size_t>(position)];
      return place_ == MeetingPlace::world ? world_rank : static_cast<int>(to_.find(world_rank));
    }
    std::int64_t r = 0;
    for (int a = 0; a < from_.axes; ++a)
      if ((axes_ >> a & 1u) != 0) r = r * from_.shape[a] + c[a];
    return static_cast<int>(r);
  }

  // The next coordinate over the axes of a role; false after the last.
  bool advance(std::int64_t* c, Role role) const {
    for (int a = from_.axes; a-- > 0;) {
      if (role_[a] != role) continue;
      if (++c[a] < from_.shape[a]) return true;
      c[a] = 0;
    }
    return false;
  }

  // Calls f(coordinate of the first term, what it holds) for every disjoint part of the source.
  template <class F>
  void for_each_source(F&& f) const {
    if (no_source_) return;
    std::int64_t c[max_grid_axes] = {};
    for (int a = 0; a < from_.axes; ++a) c[a] = role_[a] == Role::fixed ? me_[a] : 0;
    do {
      const Holding held = holding_of(from_.placements, from_.shape, c, from_.axes, global_);
      if (held.size.elements() > 0) f(static_cast<const std::int64_t*>(c), held);
    } while (advance(c, Role::part));
  }

  template <class F>
  void for_each_term(const std::int64_t* first, F&& f) const {
    std::int64_t c[max_grid_axes];
    for (int a = 0; a < from_.axes; ++a) c[a] = first[a];
    do f(group_rank(c));
    while (advance(c, Role::term));
  }

  Received received() const {
    Received total;
    for_each_source([&](const std::int64_t* c, const Holding& held) {
      const std::int64_t n = common_elements(held, wanted_);
      if (n == 0) return;
      for_each_term(c, [&](int rank) {
        if (rank == mine_) return;
        total.elements += n;
        ++total.messages;
      });
    });
    return total;
  }

  std::uint64_t fingerprint() const {
    std::uint64_t h = 1099511628211ull;
    const auto mix = [&](std::int64_t v) { h = (h ^ static_cast<std::uint64_t>(v)) * 1099511628211ull; };
    for (const GridView* grid : {&from_, &to_})
      for (int a = 0; a < grid->axes; ++a) {
        mix(placement_code(grid->placements[a]));
        mix(grid->shape[a]);
      }
    if (across_)
      for (const GridView* grid : {&from_, &to_})
        for (const int r : *grid->world_ranks) mix(r);
    return h;
  }

  GridView from_;
  GridView to_;
  Extents global_;
  DType dtype_;
  bool across_ = false;
  MeetingPlace place_ = MeetingPlace::from;
  int mine_ = 0;  // this rank, where it meets the others
  std::int64_t me_[max_grid_axes] = {};
  Role role_[max_grid_axes] = {};
  std::uint32_t axes_ = 0;
  Collective collective_ = Collective::none;
  ReduceOp op_ = ReduceOp::sum;
  bool changes_ = false;
  bool reduces_ = false;
  bool fills_ = false;
  bool no_source_ = false;
  std::int64_t divisor_ = 1;
  std::int64_t terms_ = 1;
  Holding wanted_;
};

// Every rank's part is the same memory: this rank's.
struct OneInput {
  const std::byte* part;
  const std::byte* operator[](int) const { return part; }
};

// The exchange of a move that communicates. Ranks: all of the group.
template <class Comm>
void exchange(const Comm& group, const Remap& move, DType dtype, const void* in, void* out) {
  SHARDWISE_REQUIRE(PricedCommunicator<Comm> || move.terms() <= max_ranks_reduced,
                    "shardwise::redistribute: more than 1024 ranks meet in one reduction; reduce axis by axis");
  const CallInfo call = move.call();
  if constexpr (PeerlessCommunicator<Comm>) {
    group.count(call);
    return move.pull_own(in, out);
  }
  const std::size_t largest = static_cast<std::size_t>(move.largest_source()) * size_of(dtype);
  const auto body = [&](const auto& peers) { move.pull(peers.in, out); };
  if (largest <= Comm::staged_limit)
    group.exchange_staged(call, in, static_cast<std::size_t>(move.source_elements()) * size_of(dtype), body);
  else
    group.exchange(call, in, out, body);
}

// As execute(), for any placements.
template <class Mesh>
void execute_interleaved(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
                         const Extents& global, DType dtype, const void* in, void* out) {
  if (!mesh.is_member()) return;
  const Remap move(grid_view(mesh, from), grid_view(mesh, to), global, dtype);
  const std::int64_t elements = move.wanted().size.elements();
  if (move.is_local_copy()) {
    if (in != out && elements > 0) std::memcpy(out, in, static_cast<std::size_t>(elements) * size_of(dtype));
  } else if (!move.communicates()) {
    move.pull(OneInput{static_cast<const std::byte*>(in)}, out);
  } else {
    exchange(mesh.group(move.axes()), move, dtype, in, out);
    divide(dtype, out, elements, move.divisor());
  }
}

// As execute(), from one mesh to another.
template <class From, class To>
void execute_across(const From& from_mesh, const PlacementList<From::ndim>& from, const To& to_mesh,
                    const PlacementList<To::ndim>& to, const Extents& global, DType dtype, const void* in, void* out) {
  const GridView source = grid_view(from_mesh, from);
  const GridView target = grid_view(to_mesh, to);
  if (relabelling(source, target, global) != Relabelling::none) {
    if (source.coordinate != nullptr && target.coordinate != nullptr)
      copy_common(holding_of(from, from_mesh.shape(), from_mesh.grid().coordinate, global), in,
                  holding_of(to, to_mesh.shape(), to_mesh.grid().coordinate, global), out, size_of(dtype));
    return;
  }
  const MeetingPlace place = meeting_place(source, target);
  if ((place == MeetingPlace::from && source.coordinate == nullptr) ||
      (place == MeetingPlace::to && target.coordinate == nullptr))
    return;
  const auto& group = place == MeetingPlace::from ? from_mesh.group((1u << From::ndim) - 1u)
                      : place == MeetingPlace::to ? to_mesh.group((1u << To::ndim) - 1u)
                                                  : *to_mesh.grid().world;
  const Remap move(source, target, place, group.rank(), global, dtype);
  exchange(group, move, dtype, in, out);
  if (target.coordinate != nullptr) divide(dtype, out, move.wanted().size.elements(), move.divisor());
}

// The executor of a pair of layouts that are known to the compiler: what no box tells costs nothing where there is none.
template <bool Interleaved, class Mesh>
void execute_placed(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
                    const Extents& global, DType dtype, const void* in, void* out) {
  if constexpr (Interleaved)
    execute_interleaved(mesh, from, to, global, dtype, in, out);
  else
    execute(mesh, from, to, global, dtype, in, out);
}

}  // namespace shardwise::detail
