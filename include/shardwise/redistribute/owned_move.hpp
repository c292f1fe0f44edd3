// OwnedMove: a move that keeps what it is made of, for the forms of redistribute that bring the inputs otherwise: in two halves,
// several in one exchange. Over values, like the executors that it fronts. Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/remap.hpp>

namespace shardwise::detail {

// Interleaved: some placement is no shard, so that no box tells what a rank holds.
template <bool Interleaved>
class OwnedMove {
 public:
  using Plan = std::conditional_t<Interleaved, Remap, MovePlan>;

  OwnedMove(const MoveView& view, const std::int64_t* me, const Extents& global, DType dtype)
      : axes_(view.axes), global_(global), dtype_(dtype) {
    for (int a = 0; a < axes_; ++a) {
      from_[a] = view.from[a];
      to_[a] = view.to[a];
      mesh_[a] = view.mesh[a];
      me_[a] = me[a];
    }
  }

  MoveView view() const { return {from_, to_, mesh_, axes_}; }
  DType dtype() const { return dtype_; }
  const Extents& global() const { return global_; }
  // Refers to this object. Made where it is needed: a few hundred instructions.
  Plan plan() const {
    if constexpr (Interleaved)
      return Remap({from_, mesh_, me_, axes_}, {to_, mesh_, me_, axes_}, global_, dtype_);
    else
      return MovePlan(view(), me_, global_);
  }

  // The axes whose ranks meet; none where the move is local.
  std::uint32_t meeting_axes() const {
    if constexpr (Interleaved) {
      const Plan p = plan();
      return p.communicates() ? p.axes() : 0;
    } else {
      const MoveKind kind = move_kind(view());
      return kind.collective == Collective::none ? 0 : kind.axes;
    }
  }
  CallInfo call() const {
    if constexpr (Interleaved)
      return plan().call();
    else
      return call_of(plan(), global_, dtype_);
  }

  // For a communicator without peers.
  CallInfo counted_call() const {
    if constexpr (Interleaved)
      return plan().call();
    else
      return counted_call_of(plan(), me_, global_, dtype_);
  }

  std::size_t output_bytes() const { return bytes(plan().wanted().size.elements()); }
  std::size_t input_bytes() const {
    if constexpr (Interleaved)
      return bytes(plan().source_elements());
    else
      return bytes(box_of(from_, mesh_, me_, axes_, global_).size.elements());
  }
  // Of any rank.
  std::size_t largest_input_bytes() const {
    constexpr std::int64_t first[max_axes] = {};
    if constexpr (Interleaved)
      return bytes(plan().largest_source());
    else
      return bytes(box_of(from_, mesh_, first, axes_, global_).size.elements());
  }

  // Before peers may store into it.
  void prepare(void* out) const {
    if constexpr (!Interleaved) fill_zero(plan(), dtype_, out);
  }
  // Fills `out` from the inputs of the group, up to what `complete` does.
  void pull_from(const std::byte* const* in, void* out) const {
    if constexpr (Interleaved)
      plan().pull(in, out);
    else
      pull(plan(), dtype_, Inputs{in, nullptr}, out);
  }
  // The same where the outputs of the group can be written: equal ones share their work.
  void pull_from(const std::byte* const* in, std::byte* const* outs, void* out) const {
    if constexpr (!Interleaved) {
      const Plan p = plan();
      if (p.shares_in_place()) return pull_shared(p, dtype_, Inputs{in, nullptr}, outs);
    }
    pull_from(in, out);
  }
  void pull_own(const void* in, void* out) const {
    if constexpr (Interleaved)
      plan().pull_own(in, out);
    else
      detail::pull_own(plan(), me_, global_, dtype_, in, out);
  }
  // Where no axis meets.
  void move_alone(const void* in, void* out) const {
    if (in == out) return;
    const Plan p = plan();
    if constexpr (!Interleaved)
      move_locally(p, dtype_, in, out);
    else if (!p.is_local_copy())
      p.pull(OneInput{static_cast<const std::byte*>(in)}, out);
    else if (const std::size_t n = output_bytes(); n > 0)
      std::memcpy(out, in, n);
  }
  void complete(void* out) const {
    const Plan p = plan();
    divide(dtype_, out, p.wanted().size.elements(), averaged_over(view()));
  }

 private:
  std::size_t bytes(std::int64_t elements) const { return static_cast<std::size_t>(elements) * size_of(dtype_); }

  PlacementValue from_[max_axes];
  PlacementValue to_[max_axes];
  std::int64_t mesh_[max_axes];
  std::int64_t me_[max_axes];
  int axes_;
  Extents global_;
  DType dtype_;
};

template <class From, class To, class Mesh>
MoveView view_of(const Mesh& mesh) {
  static_assert(Mesh::ndim <= max_axes, "shardwise::redistribute: [P6] tensors lie on meshes of at most 8 axes");
  return {From::placements.data(), To::placements.data(), mesh.shape().data(), static_cast<int>(Mesh::ndim)};
}

}  // namespace shardwise::detail
