// The executor: moves one rank's part of a tensor from any placements to any others, over values, in at most
// one exchange. A transition is an intersection of boxes plus a pending reduction. Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/mesh/device_mesh.hpp>
#include <shardwise/placement/box.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/box_copy.hpp>

namespace shardwise::detail {

// Which axes take part in a move, and what it is called.
struct MoveKind {
  std::uint32_t axes = 0;  // bit a: ranks that differ on axis a exchange
  Collective collective = Collective::none;
  ReduceOp op = ReduceOp::sum;
  bool reduces = false;
  bool fills = false;  // a Partial is made: what a rank does not hold is zero
};

// An axis that stays Shard<d> takes part where an axis before it, whose placement on d changes, cuts it out of
// another range. Everything else that stays is not touched: its ranks never meet.
template <std::size_t N>
constexpr MoveKind move_kind(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh) {
  MoveKind kind;
  bool gathers = false;
  bool exchanges = false;
  bool all_reduces = false;
  bool scatters = false;
  for (std::size_t a = 0; a < N; ++a) {
    bool moves = from[a] != to[a];
    if (!moves && from[a].is_shard())
      for (std::size_t b = 0; b < a; ++b)
        if (from[b] != to[b] && mesh[b] > 1 && (from[b].is_shard(from[a].dim) || to[b].is_shard(from[a].dim)))
          moves = true;
    if (!moves || mesh[a] == 1) continue;
    kind.axes |= 1u << a;
    if (from[a].is_partial() && !to[a].is_partial()) {
      kind.reduces = true;
      if (from[a].op != ReduceOp::avg) kind.op = from[a].op;
      (to[a].is_replicate() ? all_reduces : scatters) = true;
    }
    if (to[a].is_partial() && !from[a].is_partial()) kind.fills = true;
    if (from[a].is_shard() && to[a].is_replicate()) gathers = true;
    if (from[a].is_shard() && to[a].is_shard()) exchanges = true;
  }
  // Names of the special cases. A pure slice or zero-pad is local.
  if (all_reduces)
    kind.collective = Collective::all_reduce;
  else if (scatters)
    kind.collective = Collective::reduce_scatter;
  else if (exchanges)
    kind.collective = Collective::all_to_all;
  else if (gathers) {
    kind.collective = Collective::all_gather;
    for (std::size_t a = 0; a < N; ++a)  // gathered on one axis and cut on another: an exchange
      if ((kind.axes >> a & 1u) != 0 && from[a].is_replicate() && to[a].is_shard())
        kind.collective = Collective::all_to_all;
  }
  return kind;
}

// Reductions of an average are sums until they are divided by the ranks that were averaged over.
template <std::size_t N>
constexpr std::int64_t averaged_over(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh) {
  std::int64_t n = 1;
  for (std::size_t a = 0; a < N; ++a)
    if (from[a].is_partial() && from[a].op == ReduceOp::avg && !to[a].is_partial()) n *= mesh[a];
  return n;
}

template <std::size_t N>
constexpr std::uint64_t fingerprint(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh) {
  std::uint64_t h = 1469598103934665603ull;
  const auto mix = [&](std::uint64_t v) { h = (h ^ v) * 1099511628211ull; };
  for (std::size_t a = 0; a < N; ++a) {
    mix(static_cast<std::uint64_t>(placement_code(from[a])));
    mix(static_cast<std::uint64_t>(placement_code(to[a])));
    mix(static_cast<std::uint64_t>(mesh[a]));
  }
  return h;
}

// One move as this rank sees it: who holds what it needs.
//
// Ranks of the group are numbered row-major over the axes of the move. Of the replicas of a source the nearest one
// is read: the one with this rank's own coordinate.
template <std::size_t N>
class Move {
 public:
  Move(const PlacementList<N>& from, const PlacementList<N>& to, const Shape<N>& mesh, const Shape<N>& me,
       const Extents& global, DType dtype)
      : from_(from), to_(to), mesh_(mesh), me_(me), global_(global), dtype_(dtype), kind_(move_kind(from, to, mesh)),
        divisor_(averaged_over(from, to, mesh)), wanted_(box_of(to, mesh, me, global)) {}

  const MoveKind& kind() const { return kind_; }
  const Box& wanted() const { return wanted_; }

  CallInfo call() const {
    CallInfo info;
    info.collective = kind_.collective;
    info.dtype = dtype_;
    info.op = kind_.op;
    info.shape = global_;
    info.layout = fingerprint(from_, to_, mesh_);
    info.bytes = received() * static_cast<std::int64_t>(size_of(dtype_));
    return info;
  }

  // The most elements that any rank puts in; the same on all ranks.
  std::int64_t largest_source() const { return box_of(from_, mesh_, Shape<N>{}, global_).size.elements(); }

  // Each rank fills its own output from everybody's input.
  template <class In>
  void pull(const In& in, void* out) const {
    std::byte* outputs[1] = {static_cast<std::byte*>(out)};
    fill_zero(out);
    run(in, wanted_, outputs, 1);
  }

  // Ranks with equal outputs share the reduction: each does a part and stores it in all their outputs.
  void pull_shared(const std::byte* const* in, std::byte* const* out) const {
    std::byte* outputs[max_ranks_reduced];
    int count = 0;
    int my_share = 0;
    for_each_replica([&](int rank, bool mine) {
      if (mine) my_share = count;
      outputs[count++] = out[rank];
    });
    run(in, share(my_share, count), outputs, count);
  }

  bool shares() const { return kind_.reduces && !kind_.fills && replicas() > 1 && replicas() <= max_ranks_reduced; }

 private:
  bool in_group(std::size_t a) const { return (kind_.axes >> a & 1u) != 0; }

  int group_rank(const Shape<N>& coordinate) const {
    std::int64_t r = 0;
    for (std::size_t a = 0; a < N; ++a)
      if (in_group(a)) r = r * mesh_[a] + coordinate[a];
    return static_cast<int>(r);
  }

  int replicas() const {
    std::int64_t n = 1;
    for (std::size_t a = 0; a < N; ++a)
      if (in_group(a) && to_[a].is_replicate()) n *= mesh_[a];
    return static_cast<int>(n);
  }

  // Ranks of the group that want the same box as this one.
  template <class F>
  void for_each_replica(F&& f) const {
    Shape<N> c = me_;
    for (std::size_t a = 0; a < N; ++a)
      if (in_group(a) && to_[a].is_replicate()) c[a] = 0;
    while (true) {
      f(group_rank(c), c == me_);
      std::size_t a = N;
      while (a-- > 0) {
        if (!in_group(a) || !to_[a].is_replicate()) continue;
        if (++c[a] < mesh_[a]) break;
        c[a] = 0;
      }
      if (a == static_cast<std::size_t>(-1)) return;
    }
  }

  // Part i of k of the wanted box: cut along the first dimension that is long enough.
  Box share(int i, int k) const {
    Box part = wanted_;
    int best = 0;
    for (int d = 0; d < part.size.rank; ++d) {
      if (part.size[d] >= k) {
        best = d;
        break;
      }
      if (part.size[d] > part.size[best]) best = d;
    }
    if (part.size.rank == 0) {  // one element
      if (i != 0) {
        part.size.rank = 1;
        part.size[0] = 0;
        part.offset.rank = 1;
      }
      return part;
    }
    const Range r = chunk({part.offset[best], part.size[best]}, k, i);
    part.offset[best] = r.offset;
    part.size[best] = r.size;
    return part;
  }

  void fill_zero(void* out) const {
    if (kind_.fills && !wanted_.empty())
      std::memset(out, 0, static_cast<std::size_t>(wanted_.size.elements()) * size_of(dtype_));
  }

  // Calls f(coordinates of the first term, held box) for every disjoint piece of the source.
  template <class F>
  void for_each_source(F&& f) const {
    Shape<N> c = me_;
    bool varies[N] = {};
    for (std::size_t a = 0; a < N; ++a) {
      if (!in_group(a)) continue;
      if (to_[a].is_partial()) {  // a term stays with its coordinate; a value becomes the first rank's term
        if (from_[a].is_replicate() && me_[a] != 0) return;
        continue;
      }
      varies[a] = from_[a].is_shard();
      if (varies[a] || from_[a].is_partial()) c[a] = 0;
    }
    while (true) {
      f(c, box_of(from_, mesh_, c, global_));
      std::size_t a = N;
      while (a-- > 0) {
        if (!varies[a]) continue;
        if (++c[a] < mesh_[a]) break;
        c[a] = 0;
      }
      if (a == static_cast<std::size_t>(-1)) return;
    }
  }

  // Ranks that hold terms of the source at `c`, in rank order.
  template <class F>
  void for_each_term(Shape<N> c, F&& f) const {
    while (true) {
      f(group_rank(c));
      std::size_t a = N;
      while (a-- > 0) {
        if (!in_group(a) || !from_[a].is_partial() || to_[a].is_partial()) continue;
        if (++c[a] < mesh_[a]) break;
        c[a] = 0;
      }
      if (a == static_cast<std::size_t>(-1)) return;
    }
  }

  // in[r] is the local tensor of rank r of the group.
  template <class In>
  void run(const In& in, const Box& part, std::byte* const* outputs, int output_count) const {
    if (part.empty()) return;
    for_each_source([&](const Shape<N>& c, const Box& held) {
      const Box piece = intersection(part, held);
      if (piece.empty()) return;
      if (!kind_.reduces) {
        copy_box(piece, held, in[group_rank(c)], wanted_, outputs[0], size_of(dtype_));
        return;
      }
      const std::byte* terms[max_ranks_reduced];
      int count = 0;
      for_each_term(c, [&](int rank) { terms[count++] = in[rank]; });
      reduce_box(dtype_, piece, held, terms, count, wanted_, outputs, output_count, kind_.op);
    });
  }

  // Elements that come from other ranks when equal outputs share their work.
  std::int64_t received() const {
    if (kind_.axes == 0 || kind_.collective == Collective::none) return 0;
    const int mine = group_rank(me_);
    Box part = wanted_;
    std::int64_t total = 0;
    if (shares()) {
      int k = 0;
      int my_share = 0;
      for_each_replica([&](int, bool is_me) {
        if (is_me) my_share = k;
        ++k;
      });
      part = share(my_share, k);
      total = wanted_.size.elements() - part.size.elements();
    }
    for_each_source([&](const Shape<N>& c, const Box& held) {
      const std::int64_t n = intersection(part, held).size.elements();
      for_each_term(c, [&](int rank) {
        if (rank != mine) total += n;
      });
    });
    return total;
  }

 public:
  std::int64_t divisor() const { return divisor_; }

 private:
  PlacementList<N> from_;
  PlacementList<N> to_;
  Shape<N> mesh_;
  Shape<N> me_;
  Extents global_;
  DType dtype_;
  MoveKind kind_;
  std::int64_t divisor_;
  Box wanted_;
};

template <class Type>
void divide(Type dtype, void* data, std::int64_t n, std::int64_t by) {
  if (by == 1) return;
  visit_dtype(dtype, [&]<class T>(T) {
    T* p = static_cast<T*>(data);
    const T d = static_cast<T>(static_cast<int>(by));
    for (std::int64_t i = 0; i < n; ++i) p[i] = static_cast<T>(p[i] / d);
  });
}

// Fills `out`, this rank's part of `to`, from everybody's part of `from`. The buffers do not overlap.
//
// Ranks: all of the mesh. `in` may be read by others until the call returns, never after.
template <class Mesh>
void execute(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
             const Extents& global, DType dtype, const void* in, void* out) {
  if (!mesh.is_member()) return;
  const Move<Mesh::ndim> move(from, to, mesh.shape(), mesh.grid().coordinate, global, dtype);
  const std::int64_t elements = move.wanted().size.elements();
  if (move.kind().collective == Collective::none) {
    // Only this rank's own part is read, whatever its number in the group.
    const auto* own = static_cast<const std::byte*>(in);
    if (move.kind().axes == 0 && !move.kind().fills) {
      if (in != out && elements > 0) std::memcpy(out, in, static_cast<std::size_t>(elements) * size_of(dtype));
    } else {
      struct {
        const std::byte* part;
        const std::byte* operator[](int) const { return part; }
      } const local{own};
      move.pull(local, out);
    }
    return;
  }
  // Ranks meet over an empty tensor too: one that took its part for empty, while others did not, is found out here.
  const auto& group = mesh.group(move.kind().axes);
  const CallInfo call = move.call();
  const std::size_t largest = static_cast<std::size_t>(move.largest_source()) * size_of(dtype);
  using Comm = typename Mesh::Communicator;
  if (largest <= Comm::staged_limit) {
    group.exchange_staged(
        call, in,
        static_cast<std::size_t>(box_of(from, mesh.shape(), mesh.grid().coordinate, global).size.elements()) *
            size_of(dtype),
        [&](const auto& peers) { move.pull(peers.in, out); });
  } else if (move.shares()) {
    group.exchange(call, in, out, [&](const auto& peers) { move.pull_shared(peers.in, peers.out); });
  } else {
    group.exchange(call, in, out, [&](const auto& peers) { move.pull(peers.in, out); });
  }
  divide(dtype, out, elements, move.divisor());
}

// A pending gradient is the move from Partial to Replicate on one axis: no second all_reduce is compiled for it.
template <class Mesh>
void sum_over_axis(const Mesh& mesh, int axis, DType dtype, void* data, std::int64_t count) {
  PlacementList<Mesh::ndim> from{};
  from[static_cast<std::size_t>(axis)] = partial_value();
  const auto bytes = static_cast<std::size_t>(count) * size_of(dtype);
  Buffer sum(bytes);
  execute(mesh, from, PlacementList<Mesh::ndim>{}, Extents(Shape<1>{count}), dtype, data, sum.data());
  if (bytes > 0) std::memcpy(data, sum.data(), bytes);
}

}  // namespace shardwise::detail
