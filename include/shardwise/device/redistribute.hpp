// Moves of distributed tensors whose parts lie on devices: what the front in redistribute/ calls there. Everything is put on the calling
// thread's current stream, and the host waits for nothing. Layer: device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/device/stream_move.hpp>
#include <shardwise/device/stream_reads.hpp>
#include <shardwise/device/tensor.hpp>
#include <shardwise/redistribute/cross_move.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/meeting.hpp>
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

// The gradient of what came from the host goes back there. The host waits for it.
struct FromHostNode final : Node {
  FromHostNode() : Node("from_local") {}
  void backward(GradSlot& out) override {
    const std::size_t bytes = static_cast<std::size_t>(out.count) * size_of(out.dtype);
    const cuda::StreamView stream = cuda::current_stream();
    Buffer here(bytes);
    copy_to_host(here, out.grad, bytes, stream);
    stream.synchronize();
    accumulate(*inputs[0], std::move(here), out.pending);
  }
};

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

  // A part that lies on the host as one on this rank's device, on the same tape; nothing on a rank outside the mesh.
  template <class Mesh>
  static Ref<TensorImpl> brought(const Mesh& mesh, const TensorImpl& x, DType dtype) {
    if (!mesh.is_member()) return share_impl(Buffer(), x.global, x.local);
    const cuda::StreamView stream = stream_of(mesh.group((1u << Mesh::ndim) - 1u));
    return brought(x, dtype, stream);
  }

  // The current stream works on them. Throws `Error` where one lies on another device.
  template <class... Buffers>
  static void use(const Buffers&... buffers) {
    const cuda::StreamView stream = cuda::current_stream();
    (use_on(buffers, stream), ...);
  }
  template <class X, class Y>
  static void copy(const X& x, Y& y) {
    use(x.impl()->buffer);
    Cuda::copy(y.impl()->buffer, x.impl()->buffer, y.bytes());
  }
  template <class Y>
  static void fill(Y& y, typename Y::value_type value) {
    device::fill(dtype_of<typename Y::value_type>, y.device_data(), &value, y.size(), cuda::current_stream());
  }
  static Buffer multiplied(DType dtype, Buffer x, std::int64_t n, std::int64_t by) {
    if (by == 1) return x;
    const cuda::StreamView stream = cuda::current_stream();
    use_on(x, stream);
    Buffer y = x.exclusive() ? x : Cuda::allocated(static_cast<std::size_t>(n) * size_of(dtype));
    device::scale(dtype, x.data(), static_cast<double>(by), y.data(), n, stream);
    return y;
  }

  static void divide(DType dtype, void* data, std::int64_t n, std::int64_t by) {
    divide_on_stream(dtype, data, n, by, cuda::current_stream());
  }

  // What redistribute_all moves: all that meet along the same axes as one group of messages.
  template <class Comm, class Joint>
  static void exchange_jointly(const Comm& group, const Joint* moves, int count, std::uint32_t axes, CallInfo call) {
    const cuda::StreamView stream = stream_of(group);
    List<Ref<JointPart>> parts;
    bool alike = true;
    for (int i = 0; i < count; ++i) {
      if (moves[i].axes != axes) continue;
      alike = alike && moves[i].move.dtype() == call.dtype;
      parts.push_back(make_ref<JointPart>(moves[i], stream));
    }
    if (!alike) call.dtype = DType::uint8;
    const auto meet = [&](auto&& exchange_of) {
      List<StreamMessage> sends, receives;
      for (const Ref<JointPart>& part : parts)
        if (StreamExchange* const exchange = exchange_of(*part))
          exchange->begin(sends, receives, alike ? 1 : static_cast<std::int64_t>(size_of(part->dtype)));
      group.exchange_on_stream(call, {sends.data(), sends.size()}, {receives.data(), receives.size()});
      for (const Ref<JointPart>& part : parts)
        if (StreamExchange* const exchange = exchange_of(*part)) exchange->end();
    };
    for (const Ref<JointPart>& part : parts) {
      part->move.fill_zero();
      part->move.add_inputs(part->exchange, part->pieces);
    }
    meet([](JointPart& part) { return &part.exchange; });
    bool any = false;
    for (const Ref<JointPart>& part : parts) {
      part->move.reduce(part->exchange, part->pieces);
      any = any || part->move.shares();
      if (part->move.shares()) part->move.add_shares(part->shares);
    }
    if (!any) return;
    call.bytes = CallInfo::part_of_another;
    meet([](JointPart& part) { return part.move.shares() ? &part.shares : nullptr; });
  }
  template <class Mesh, class Joint>
  static void move_alone(const Mesh& mesh, const Joint& m) {
    const MovePlan plan = m.move.plan();
    const auto& group = mesh.group((1u << Mesh::ndim) - 1u);
    StreamMove(plan, m.move.global(), m.move.dtype(), m.in, m.out, stream_of(group)).alone();
  }

  // Fills y with the part that `placements` say of x, which lies on this rank's device or on the host.
  template <bool Interleaved, class Mesh, class X, class Y>
  static void distribute_tensor(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements, const X& x, Y& y,
                                int source) {
    constexpr bool here = std::is_same_v<typename X::layout_type, Local<Cuda>>;
    use(x.impl()->buffer);
    const auto there = [&] {
      if constexpr (here)
        return x;
      else
        return to_device(x);
    }();
    detail::distribute<Interleaved>(mesh, placements, x.impl()->global, dtype_of<typename X::value_type>, source,
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
  // Stays where it was made: the move refers to the plan.
  struct JointPart {
    template <class Joint>
    JointPart(const Joint& joint, const cuda::StreamView& stream)
        : dtype(joint.move.dtype()), plan(joint.move.plan()),
          move(plan, joint.move.global(), dtype, joint.in, joint.out, stream), exchange(size_of(dtype), stream),
          shares(size_of(dtype), stream) {}
    DType dtype;
    MovePlan plan;
    StreamMove move;
    StreamExchange exchange, shares;
    List<StreamMove::Piece> pieces;
  };

  static Ref<TensorImpl> brought(const TensorImpl& x, DType dtype, const cuda::StreamView& stream) {
    const std::size_t bytes = static_cast<std::size_t>(x.local.elements()) * size_of(dtype);
    Ref<TensorImpl> there = share_impl(device_buffer(bytes, stream), x.global, x.local);
    copy_to_device(there->buffer, x.buffer, bytes, stream);
    there->origin = x.origin;
    if (tape_state().enabled && x.slot != nullptr) {
      Ref<Node> node = make_node<FromHostNode>();
      node->inputs.push_back(x.slot);
      there->remembered = x.remembered;
      there->slot = make_slot(dtype, x.local.elements(), false, 0, &device_gradients);
      there->slot->producer = std::move(node);
    }
    return there;
  }

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

// Placements that no box tells, and other meshes.
template <>
struct DeviceExecutor<true> {
  template <class Mesh>
  static void execute(const Mesh& mesh, const PlacementList<Mesh::ndim>& from, const PlacementList<Mesh::ndim>& to,
                      const Extents& global, DType dtype, const void* in, void* out) {
    if (!mesh.is_member()) return;
    run(mesh, Remap(grid_view(mesh, from), grid_view(mesh, to), global, dtype), grid_view(mesh, from).own(global),
        dtype, in, out);
  }

  template <class Mesh>
  static void distribute(const Mesh& mesh, const PlacementList<Mesh::ndim>& placements, const Extents& global,
                         const CallInfo& call, const void* in, void* out, std::size_t bytes) {
    const auto& group = mesh.group((1u << Mesh::ndim) - 1u);
    const cuda::StreamView stream = stream_of(group);
    const std::size_t element = size_of(call.dtype);
    StreamExchange exchange(element, stream);
    ListedCopies packs(element);
    const PlacementList<Mesh::ndim> none{};
    const GridView whole = grid_view(mesh, none), parts = grid_view(mesh, placements);
    const Holding all = whole.holding(0, global);
    const ListedCopies::Side source{static_cast<std::byte*>(const_cast<void*>(in))};
    const bool root = group.rank() == call.root;
    for (int r = 0; r < group.size(); ++r) {
      if (!root && r != group.rank()) continue;
      const Holding part = parts.holding(r, global);
      const std::int64_t n = part.size.elements();
      std::int64_t at[max_grid_axes] = {};
      parts.coordinate_at(r, at);
      bool has_part = n > 0;  // of a pending sum only the first has
      for (std::size_t a = 0; a < Mesh::ndim; ++a) has_part = has_part && (!placements[a].is_partial() || at[a] == 0);
      if (!has_part) {
        if (r == group.rank()) zero_device_memory(out, bytes, stream);
      } else if (!root) {
        exchange.receive_into(call.root, static_cast<std::byte*>(out), n);
      } else if (r == group.rank()) {
        packs.add(all, source, part, {static_cast<std::byte*>(out)});
      } else {
        packs.add(all, source, part, {nullptr, exchange.send_packed(r, n)});
      }
    }
    exchange.allocate();
    packs.run(exchange, stream);
    exchange.run(group, call);
  }

  // As those of boxes: all that meet along the same axes as one group of messages.
  template <class Comm, class Joint>
  static void exchange_jointly(const Comm& group, const Joint* moves, int count, std::uint32_t axes, CallInfo call) {
    const cuda::StreamView stream = stream_of(group);
    List<Ref<JointReads>> parts;
    bool alike = true;
    for (int i = 0; i < count; ++i) {
      if (moves[i].axes != axes) continue;
      alike = alike && moves[i].move.dtype() == call.dtype;
      parts.push_back(make_ref<JointReads>(moves[i], stream));
    }
    if (!alike) call.dtype = DType::uint8;
    List<StreamMessage> sends, receives;
    for (const Ref<JointReads>& part : parts)
      part->reads.begin(sends, receives, alike ? 1 : static_cast<std::int64_t>(size_of(part->reads.dtype())));
    group.exchange_on_stream(call, {sends.data(), sends.size()}, {receives.data(), receives.size()});
    for (const Ref<JointReads>& part : parts) part->reads.end();
  }
  template <class Mesh, class Joint>
  static void move_alone(const Mesh& mesh, const Joint& m) {
    const MoveView view = m.move.view();
    const GridView from{view.from, view.mesh, mesh.grid().coordinate.data(), view.axes};
    run(mesh, m.move.plan(), from.own(m.move.global()), m.move.dtype(), m.in, m.out);
  }

  // As execute_across of the host, in one step.
  template <class From, class To>
  static void execute_across(const From& from_mesh, const PlacementList<From::ndim>& from, const To& to_mesh,
                             const PlacementList<To::ndim>& to, const Extents& global, DType dtype, const void* in,
                             void* out) {
    const GridView source = listed_grid_view(from_mesh, from), target = listed_grid_view(to_mesh, to);
    if (relabelling(source, target, global) != Relabelling::none) {
      if (source.coordinate != nullptr && target.coordinate != nullptr)
        copy_common_on_stream(source.own(global), in, target.own(global), out, size_of(dtype),
                              stream_of(*to_mesh.grid().world));
      return;
    }
    const MeetingPlace place = meeting_place(source, target);
    const auto* const group = meeting_group(place, from_mesh, to_mesh);
    if (group == nullptr) return;
    const CrossMove move(source, target, place, group->rank(), group->size(), global, dtype, false);
    exchange_reads_on_stream(*group, move, move.call(), dtype, in, out, stream_of(*group));
  }

 private:
  struct JointReads {
    template <class Joint>
    JointReads(const Joint& joint, const cuda::StreamView& stream)
        : reads(joint.move.plan(), joint.move.dtype(), joint.in, joint.out, stream) {
      fill_zero(joint.move.plan(), joint.move.dtype(), joint.out, stream);
    }
    StreamReads reads;
  };
  static void fill_zero(const Remap& move, DType dtype, void* out, const cuda::StreamView& stream) {
    if (move.fills())
      zero_device_memory(out, static_cast<std::size_t>(move.wanted().size.elements()) * size_of(dtype), stream);
  }
  template <class Comm>
  static void exchange(const Comm& group, const Remap& move, DType dtype, const void* in, void* out) {
    const cuda::StreamView stream = stream_of(group);
    fill_zero(move, dtype, out, stream);
    exchange_reads_on_stream(group, move, move.call(), dtype, in, out, stream);
  }
  template <class Mesh>
  static void run(const Mesh& mesh, const Remap& move, const Holding& own, DType dtype, const void* in, void* out) {
    if (move.communicates()) return exchange(mesh.group(move.axes()), move, dtype, in, out);
    const cuda::StreamView stream = stream_of(mesh.group((1u << Mesh::ndim) - 1u));
    const std::size_t bytes = static_cast<std::size_t>(move.wanted().size.elements()) * size_of(dtype);
    if (in == out || bytes == 0) return;
    if (move.fills()) zero_device_memory(out, bytes, stream);
    bool reads = false;
    move.for_each_read([&](const Read&) { reads = true; });
    if (reads) copy_common_on_stream(own, in, move.wanted(), out, size_of(dtype), stream);
  }
};

}  // namespace shardwise::detail
