// The executor for tensors that are no boxes (block-cyclic, strided): what a rank needs is read from the ranks that hold it, in at
// most one exchange. Over values; compiled once per type of communicator. Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/grid_view.hpp>
#include <shardwise/redistribute/packed_reads.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// One move as this rank sees it.
template <class Grid = GridView>
class BasicRemap {
 public:
  // Ranks meet along the axes whose coordinate says who holds what is needed; they are numbered row-major over these.
  BasicRemap(const Grid& from, const Grid& to, const Extents& global, DType dtype)
      : from_(from), to_(to), global_(global), dtype_(dtype) {
    for (int a = 0; a < from_.axes; ++a) me_[a] = from_.coordinate[a];
    for (int a = 0; a < from_.axes; ++a) {
      if (from_.shape[a] == 1 || !takes_part(a)) continue;
      changes_ = true;
      role_[a] = role_of(a);
      if (role_[a] != Role::fixed) axes_ |= 1u << a;
      if (to_.placements[a].is_partial() && !from_.placements[a].is_partial()) {
        fills_ = true;
        if (from_.placements[a].is_replicate() && me_[a] != 0) no_source_ = true;
      }
    }
    mine_ = group_rank(me_);
    wanted_ = holding_of(to_.placements, to_.shape, to_.coordinate, to_.axes, global_);
    name_reduction();
    collective_ = collective_of_axes();
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
  std::int64_t source_elements() const { return from_.own(global_).size.elements(); }
  std::int64_t largest_source() const { return from_.largest(global_); }

  // Fills this rank's output with what it holds of it itself, and zero.
  void pull_own(const void* in, void* out) const {
    if (wanted_.size.elements() == 0) return;
    auto* target = static_cast<std::byte*>(out);
    std::memset(target, 0, static_cast<std::size_t>(wanted_.size.elements()) * size_of(dtype_));
    if (!no_source_) copy_common(from_.own(global_), in, wanted_, target, size_of(dtype_));
  }

  // Fills this rank's output; in[r] is the input of rank r of the group.
  template <class In>
  void pull(const In& in, void* out) const {
    if (wanted_.size.elements() == 0) return;
    auto* target = static_cast<std::byte*>(out);
    prepare(out);
    for_each_source([&](const std::int64_t* c, const Holding& held) {
      if (!reduces_) return copy_common(held, in[group_rank(c)], wanted_, target, size_of(dtype_));
      const std::byte* terms[max_ranks_reduced];
      int count = 0;
      for_each_term(c, [&](int rank) { terms[count++] = in[rank]; });
      reduce_common(dtype_, held, terms, count, wanted_, target, op_);
    });
  }

  // Zero where no rank's part lands.
  void prepare(void* out) const {
    if (fills_ && wanted_.size.elements() > 0)
      std::memset(out, 0, static_cast<std::size_t>(wanted_.size.elements()) * size_of(dtype_));
  }

  bool fills() const { return fills_; }

  // For messages: what this rank reads, part by part, and what any other one does.
  ReduceOp op() const { return op_; }
  int group_rank() const { return mine_; }
  int group_size() const {
    std::int64_t n = 1;
    for (int a = 0; a < from_.axes; ++a) n *= (axes_ >> a & 1u) != 0 ? from_.shape[a] : 1;
    return static_cast<int>(n);
  }
  template <class F>
  void for_each_read(F&& f) const {
    int ranks[max_ranks_reduced];
    for_each_source([&](const std::int64_t* c, const Holding& held) {
      const std::int64_t n = common_elements(held, wanted_);
      if (n == 0) return;
      int count = 0;
      for_each_term(c, [&](int rank) { ranks[count++] = rank; });
      f(Read{held, {}, n, ranks});
    });
  }
  template <class F>
  void seen_by(int rank, F&& f) const {
    std::int64_t c[max_grid_axes];
    for (int a = from_.axes; a-- > 0;) {
      c[a] = me_[a];
      if ((axes_ >> a & 1u) == 0) continue;
      c[a] = rank % from_.shape[a];
      rank /= static_cast<int>(from_.shape[a]);
    }
    Grid from = from_, to = to_;
    from.coordinate = to.coordinate = c;
    f(BasicRemap(from, to, global_, dtype_));
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
  Role role_of(int a) const {
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

  Collective collective_of_axes() const {
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
    for (const Grid* grid : {&from_, &to_})
      for (int a = 0; a < grid->axes; ++a) {
        mix(placement_code(grid->placements[a]));
        mix(grid->shape[a]);
      }
    return h;
  }

  Grid from_;
  Grid to_;
  Extents global_;
  DType dtype_;
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
using Remap = BasicRemap<>;

// Every rank's part is the same memory: this rank's.
struct OneInput {
  const std::byte* part;
  const std::byte* operator[](int) const { return part; }
};

// The exchange of a move that communicates. Ranks: all of the group.
template <class Comm, class Move>
void exchange(const Comm& group, const Move& move, DType dtype, const void* in, void* out) {
  const CallInfo call = move.call();
  if constexpr (PeerlessCommunicator<Comm>) {
    group.count(call);
    return move.pull_own(in, out);
  }
  SHARDWISE_REQUIRE(move.terms() <= max_ranks_reduced,
                    "shardwise::redistribute: more than 1024 ranks meet in one reduction; reduce axis by axis");
  if constexpr (ExchangesPacked<Comm>)
    if (!group.direct()) return exchange_reads(group, move, call, dtype, in, out);
  const std::size_t largest = static_cast<std::size_t>(move.largest_source()) * size_of(dtype);
  const auto body = [&](const auto& peers) { move.pull(peers.in, out); };
  const std::size_t bytes = static_cast<std::size_t>(move.source_elements()) * size_of(dtype);
  if (largest <= Comm::staged_limit)
    group.exchange_staged(call, in, bytes, body);
  else
    group.exchange(call, in, bytes, out, body);
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

// The executor of a pair of layouts that are known to the compiler: what no box tells costs nothing where there is none.
template <bool Interleaved, class Mesh>
void execute_placed(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
                    const Extents& global, DType dtype, const void* in, void* out) {
  if constexpr (!mesh_on_host<Mesh>)
    DeviceExecutor<Interleaved>::execute(mesh, from, to, global, dtype, in, out);
  else if constexpr (!tensors_move_over<typename Mesh::Communicator>)
    check_communicator<typename Mesh::Communicator>();
  else if constexpr (Interleaved)
    execute_interleaved(mesh, from, to, global, dtype, in, out);
  else
    execute(mesh, from, to, global, dtype, in, out);
}

}  // namespace shardwise::detail
