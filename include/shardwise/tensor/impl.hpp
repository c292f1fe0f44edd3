// What the handles of a tensor share, with element type, rank and layout forgotten: memory, sizes, the slot of a gradient. On the
// host and in the memory spaces of devices. Layer: tensor.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/tape/tape.hpp>
#include <shardwise/tensor/layout.hpp>

namespace shardwise::detail {

// Of which distributed tensor a plain one is this rank's part, where its sizes do not tell: uneven shards. What goes back to the
// same mesh with the same placements has the same global sizes, without being told. The mesh is kept by the derived class, so that
// its address stays its own.
struct Origin {
  const void* mesh;
  std::uint64_t placements;
  Extents global;
};
template <class Mesh>
struct OriginOn : Origin {
  OriginOn(const Mesh& m, std::uint64_t key, const Extents& shape) : Origin{m.identity(), key, shape}, kept(m) {}
  Mesh kept;
};

// What handles share. Erased: rank, layout and element type are known by the handle's type.
struct TensorImpl {
  Buffer buffer;
  Extents global;
  Extents local;
  Ref<GradSlot> slot;  // null where no gradient is wanted
  // from_local() of one tensor on one mesh with one placement is one node of the tape: who asked, what they got. The slot
  // is what lives as long as the tape needs it; the handle may be gone.
  struct Remembered {
    const void* mesh;
    std::uint64_t placements;
    Extents global;
    WeakRef<GradSlot> slot;
  };
  List<Remembered> remembered;
  Ref<const Origin> origin;  // of a plain tensor; null where local sizes tell
};

// Compiled once: what each tensor type would otherwise bring along.
[[gnu::noinline]] inline Ref<TensorImpl> share_impl(const Buffer& buffer, const Extents& global, const Extents& local) {
  auto impl = make_ref<TensorImpl>();
  impl->buffer = buffer;
  impl->global = global;
  impl->local = local;
  return impl;
}
[[gnu::noinline]] inline Ref<TensorImpl> make_impl(const Extents& global, const Extents& local, std::size_t element) {
  return share_impl(Buffer(static_cast<std::size_t>(local.elements()) * element), global, local);
}
[[noreturn, gnu::noinline, gnu::cold]] inline void fail_undefined() {
  fail("shardwise::Tensor: this tensor is undefined: it was default-constructed, or moved from; give it a value first");
}
// None negative, and no more elements than 64 bits can count the bytes of.
[[gnu::noinline]] inline void check_sizes(const Extents& sizes) {
  std::int64_t elements = 1;
  bool counted = true;
  for (int d = 0; d < sizes.rank; ++d) {
    SHARDWISE_REQUIRE(sizes[d] >= 0, text("shardwise::Tensor: a size of ", sizes[d], " in ", sizes), ShapeError);
    counted = counted && !__builtin_mul_overflow(elements, sizes[d], &elements);
  }
  SHARDWISE_REQUIRE(counted && elements <= std::int64_t(1) << 58,
                    text("shardwise::Tensor: ", sizes, " has more elements than any memory holds"), ShapeError);
}
[[gnu::noinline]] inline Ref<TensorImpl> make_zeroed(const Extents& sizes, std::size_t element) {
  check_sizes(sizes);
  auto impl = make_impl(sizes, sizes, element);
  std::memset(impl->buffer.data(), 0, static_cast<std::size_t>(sizes.elements()) * element);
  return impl;
}
// Memory that the host does not reach is zeroed by its space.
template <class Space>
Ref<TensorImpl> make_zeroed(Local<Space>, const Extents& sizes, std::size_t element) {
  if constexpr (on_host<Local<Space>>) {
    return make_zeroed(sizes, element);
  } else {
    check_sizes(sizes);
    return share_impl(Space::zeroed(static_cast<std::size_t>(sizes.elements()) * element), sizes, sizes);
  }
}
[[gnu::noinline]] inline Ref<GradSlot> make_slot(DType dtype, std::int64_t count, bool leaf, std::uint32_t not_first,
                                                 const GradMemory* memory = nullptr) {
  auto slot = make_ref<GradSlot>();
  slot->memory = memory;
  slot->dtype = dtype;
  slot->count = count;
  slot->leaf = leaf;
  slot->not_first = not_first;
  return slot;
}

template <class Layout>
constexpr const GradMemory* grad_memory_of() {
  if constexpr (on_host<Layout>)
    return nullptr;
  else
    return &space_of<Layout>::gradients;
}

}  // namespace shardwise::detail
