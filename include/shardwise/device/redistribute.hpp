// Moves of distributed tensors whose parts lie on devices: what the front in redistribute/ calls there. Everything is put on the calling
// thread's current stream, and the host waits for nothing. Layer: device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <shardwise/device/stream_move.hpp>
#include <shardwise/device/tensor.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/remap.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise::detail {

// The stream of a rank's device. A tensor that another device holds could not be told from one of this rank.
template <StreamCommunicator Comm>
cuda::StreamView stream_of(const Comm& group) {
  const int current = cuda::current_device();
  SHARDWISE_REQUIRE(current == group.device(),
                    text("shardwise::redistribute: the rank works on device ", group.device(),
                         ", the calling thread on ", current, "; cuda::set_device(", group.device(), ") first"));
  return cuda::current_stream(current);
}

template <>
struct DeviceExecutor<false> {
  // Fills `out`, this rank's part of `to`. Ranks: all of the mesh.
  template <class Mesh>
  static void execute(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
                      const Extents& global, DType dtype, const void* in, void* out) {
    static_assert(Mesh::ndim <= max_axes, "shardwise::redistribute: [P6] tensors lie on meshes of at most 8 axes");
    if (!mesh.is_member()) return;
    const MovePlan plan({from.data(), to.data(), mesh.shape().data(), static_cast<int>(Mesh::ndim)},
                        mesh.grid().coordinate.data(), global);
    const auto& group = mesh.group(plan.kind().axes != 0 ? plan.kind().axes : (1u << Mesh::ndim) - 1u);
    StreamMove move(plan, global, dtype, in, out, stream_of(group));
    if (plan.kind().collective == Collective::none)
      move.alone();
    else
      move.over(group, call_of(plan, global, dtype));
  }

  // A pending gradient: the terms become their sum where they lie.
  template <class Mesh>
  static void sum_over_axis(const Mesh& mesh, int axis, DType dtype, void* data, std::int64_t count) {
    PlacementList<Mesh::ndim> from{};
    from[static_cast<std::size_t>(axis)] = partial_value();
    execute(mesh, from, PlacementList<Mesh::ndim>{}, Extents(Shape<1>{count}), dtype, data, data);
  }

  static void divide(DType dtype, void* data, std::int64_t n, std::int64_t by) {
    divide_on_stream(dtype, data, n, by, cuda::current_stream());
  }

  // Fills y with its part of x, which lies on this rank's device or on the host.
  template <class X, class Y>
  static void distribute_tensor(const X& x, Y& y, int source) {
    constexpr bool here = std::is_same_v<typename X::layout_type, Local<Cuda>>;
    const auto there = [&] {
      if constexpr (here)
        return x;
      else
        return to_device(x);
    }();
    detail::distribute<is_interleaved(Y::placements)>(y.mesh(), Y::placements, x.impl()->global,
                                                      dtype_of<typename X::value_type>, source,
                                                      there.impl()->buffer.data(), y.impl()->buffer.data(), y.bytes());
  }
  // Fills `out` from the whole tensor of the root of `call`. Ranks: all of the mesh.
  template <class Mesh>
  static void distribute(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements, const Extents& global,
                         const CallInfo& call, const void* in, void* out, std::size_t bytes) {
    const auto& group = mesh.group((1u << Mesh::ndim) - 1u);
    const cuda::StreamView stream = stream_of(group);
    const PlacementList<Mesh::ndim> whole{};
    const MoveView view{whole.data(), placements.data(), mesh.shape().data(), static_cast<int>(Mesh::ndim)};
    if (call.collective == Collective::broadcast && pending_axes(placements) == 0) {
      if (group.rank() == call.root) copy_bytes(out, in, bytes, stream);
      return group.broadcast_on_stream(call, out, global.elements());
    }
    distribute_parts(group, view, global, call, static_cast<const std::byte*>(in), static_cast<std::byte*>(out), bytes,
                     stream);
  }

 private:
  static void copy_bytes(void* to, const void* from, std::size_t bytes, const cuda::StreamView& stream) {
    if (bytes > 0) SHARDWISE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream.handle));
  }

  // Of a pending sum only the first rank of an axis has a part.
  template <class Comm>
  static void distribute_parts(const Comm& group, const MoveView& view, const Extents& global, const CallInfo& call,
                               const std::byte* in, std::byte* out, std::size_t bytes, const cuda::StreamView& stream) {
    StreamExchange exchange(size_of(call.dtype), stream);
    const Box all = whole_box(global);
    const bool root = group.rank() == call.root;
    for (int r = 0; r < group.size(); ++r) {
      if (!root && r != group.rank()) continue;
      Coordinate at{};
      for (std::int64_t rest = r, a = view.axes; a-- > 0; rest /= view.mesh[a])
        at[static_cast<int>(a)] = rest % view.mesh[a];
      const MovePlan plan(view, at.at, global);
      Coordinate unused;
      if (plan.wanted().empty()) continue;
      if (!plan.first_piece(unused)) {
        if (r == group.rank()) zero_device_memory(out, bytes, stream);
      } else if (!root) {
        exchange.receive(call.root, plan.wanted(), plan.wanted(), out);
      } else if (r == group.rank()) {
        exchange.keep(plan.wanted(), all, in, plan.wanted(), out);
      } else {
        exchange.send(r, plan.wanted(), all, in);
      }
    }
    exchange.run(group, call);
  }
};

}  // namespace shardwise::detail
