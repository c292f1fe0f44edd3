// make_cached: small shared objects out of the blocks that Buffer keeps. memory_allocated and its kin: what the calling rank
// holds in tensors. Layer: base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include <shardwise/base/buffer.hpp>

namespace shardwise {
namespace detail {

// Allocates blocks of the cache, one an object: what every operation makes and drops costs no malloc after the first time.
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

// std::make_shared from the cache.
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
