// Ref, WeakRef: shared objects out of the blocks that Buffer keeps; make_ref makes one. memory_allocated and its kin: what
// the calling rank holds in tensors. Layer: base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include <shardwise/base/buffer.hpp>

namespace shardwise {
namespace detail {

// An owner of an object in a block of the cache, whatever its type: what every operation makes and drops costs no malloc after
// the first time. std::shared_ptr brings a family of functions for each type, which made an eighth of a small program's
// functions; here all types share these.
class AnyRef {
 public:
  constexpr AnyRef() = default;
  AnyRef(const AnyRef& other) noexcept : block_(other.block_) {
    if (block_ != nullptr) block_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  AnyRef(AnyRef&& other) noexcept : block_(other.block_) { other.block_ = nullptr; }
  AnyRef& operator=(AnyRef other) noexcept {
    Block* const mine = block_;
    block_ = other.block_;
    other.block_ = mine;
    return *this;
  }
  ~AnyRef() {
    if (block_ != nullptr) drop(*block_);
  }

  explicit operator bool() const { return block_ != nullptr; }
  friend bool operator==(const AnyRef& a, const AnyRef& b) { return a.block_ == b.block_; }
  friend bool operator==(const AnyRef& a, std::nullptr_t) { return a.block_ == nullptr; }

  void* address() const { return block_ + 1; }

 protected:
  explicit AnyRef(Block* owned) : block_(owned) {}

  Block* block_ = nullptr;

 private:
  friend class AnyWeakRef;

  [[gnu::noinline]] static void drop(Block& block) noexcept {
    if (block.owners.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    void (*const end)(Block&) noexcept = block.leave;
    block.leave = nullptr;
    end(block);
    forget(block);
  }
  static void forget(Block& block) noexcept {
    if (block.watchers.fetch_sub(1, std::memory_order_acq_rel) == 1) BlockCache::give(&block);
  }
};

// An owner of a T, or of what derives from T and begins with it.
template <class T>
class Ref : public AnyRef {
 public:
  constexpr Ref() = default;
  constexpr Ref(std::nullptr_t) {}  // NOLINT: as with every pointer
  // `owned` has one owner already, for this one.
  explicit Ref(Block* owned) : AnyRef(owned) {}
  template <class D>
    requires std::is_convertible_v<D*, T*>
  Ref(Ref<D> other) noexcept : AnyRef(static_cast<AnyRef&&>(other)) {}  // NOLINT: as with every pointer
  // The object is known to be a T.
  explicit Ref(AnyRef other) noexcept : AnyRef(static_cast<AnyRef&&>(other)) {}

  T* get() const { return block_ != nullptr ? static_cast<T*>(address()) : nullptr; }
  T* operator->() const { return static_cast<T*>(address()); }
  T& operator*() const { return *static_cast<T*>(address()); }
};

// Knows an object without owning it.
class AnyWeakRef {
 public:
  AnyWeakRef() = default;
  AnyWeakRef(const AnyRef& object) noexcept : AnyWeakRef(object.block_) {}  // NOLINT: as std::weak_ptr
  AnyWeakRef(const AnyWeakRef& other) noexcept : AnyWeakRef(other.block_) {}
  AnyWeakRef(AnyWeakRef&& other) noexcept : block_(other.block_) { other.block_ = nullptr; }
  AnyWeakRef& operator=(AnyWeakRef other) noexcept {
    Block* const mine = block_;
    block_ = other.block_;
    other.block_ = mine;
    return *this;
  }
  ~AnyWeakRef() {
    if (block_ != nullptr) AnyRef::forget(*block_);
  }

  bool expired() const { return block_ == nullptr || block_->owners.load(std::memory_order_acquire) == 0; }

 protected:
  // The object's block with one owner more, or null: it is gone.
  [[gnu::noinline]] Block* own() const noexcept {
    if (block_ == nullptr) return nullptr;
    std::int64_t owners = block_->owners.load(std::memory_order_relaxed);
    do {
      if (owners == 0) return nullptr;
    } while (!block_->owners.compare_exchange_weak(owners, owners + 1, std::memory_order_acquire));
    return block_;
  }

 private:
  explicit AnyWeakRef(Block* block) noexcept : block_(block) {
    if (block_ != nullptr) block_->watchers.fetch_add(1, std::memory_order_relaxed);
  }

  Block* block_ = nullptr;
};

template <class T>
class WeakRef : public AnyWeakRef {
 public:
  WeakRef() = default;
  WeakRef(const Ref<T>& object) noexcept : AnyWeakRef(object) {}  // NOLINT: as std::weak_ptr
  // Null where the object is gone.
  Ref<T> lock() const noexcept { return Ref<T>(own()); }
};

// A block of the cache, not initialised; it goes back unless an object was made in it.
class OwnBlock {
 public:
  explicit OwnBlock(std::size_t bytes) : block_(BlockCache::take(bytes)) {}
  OwnBlock(const OwnBlock&) = delete;
  OwnBlock& operator=(const OwnBlock&) = delete;
  ~OwnBlock() {
    if (block_ != nullptr) BlockCache::give(block_);
  }
  std::byte* memory() const { return reinterpret_cast<std::byte*>(block_ + 1); }
  Block* made(void (*end)(Block&) noexcept) {
    block_->watchers.store(1, std::memory_order_relaxed);
    block_->leave = end;
    return std::exchange(block_, nullptr);
  }

 private:
  Block* block_;
};

// std::make_shared, for Ref.
template <class T, class... Arguments>
Ref<T> make_ref(Arguments&&... arguments) {
  static_assert(alignof(T) <= 64);
  OwnBlock block(sizeof(T));
  new (block.memory()) T(static_cast<Arguments&&>(arguments)...);
  return Ref<T>(block.made([](Block& b) noexcept { reinterpret_cast<T*>(&b + 1)->~T(); }));
}

// Allocates blocks of the cache, one an object: std::make_shared from the cache.
template <class T>
struct CachedAllocator {
  static_assert(alignof(T) <= 64);
  using value_type = T;

  CachedAllocator() = default;
  template <class U>
  CachedAllocator(const CachedAllocator<U>&) noexcept {}
  T* allocate(std::size_t n) { return reinterpret_cast<T*>(BlockCache::take(n * sizeof(T)) + 1); }
  void deallocate(T* object, std::size_t) noexcept { BlockCache::give(reinterpret_cast<Block*>(object) - 1); }
  friend bool operator==(const CachedAllocator&, const CachedAllocator&) noexcept { return true; }
};

template <class T, class... Arguments>
std::shared_ptr<T> make_cached(Arguments&&... arguments) {
  return std::allocate_shared<T>(CachedAllocator<T>(), std::forward<Arguments>(arguments)...);
}

}  // namespace detail

/// Bytes of tensor elements that the calling rank has allocated and not freed: what it asked for, without the rounding of
/// the allocator. A block that another rank frees last counts there. PyTorch: `torch.cuda.memory_allocated`.
inline std::int64_t memory_allocated() { return detail::memory_count().held; }
/// The most that `memory_allocated()` was on the calling rank. PyTorch: `torch.cuda.max_memory_allocated`.
inline std::int64_t max_memory_allocated() { return detail::memory_count().peak; }
/// The peak counts from here. PyTorch: `torch.cuda.reset_peak_memory_stats`.
inline void reset_peak_memory_stats() { detail::memory_count().peak = detail::memory_count().held; }

}  // namespace shardwise
