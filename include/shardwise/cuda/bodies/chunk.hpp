// Chunks: 16 bytes of neighbouring elements, what a thread of a device reads and writes at once where addresses allow. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/base/host_device.hpp>

namespace shardwise::detail::device {

template <class T>
inline constexpr int chunk_elements = sizeof(T) >= 16 ? 1 : static_cast<int>(16 / sizeof(T));

/// W elements; whole ones are read and written in one access where the address is a multiple of `alignment`.
template <class T, int W = chunk_elements<T>>
struct Chunk {
  static constexpr std::size_t alignment = W * sizeof(T) < 16 ? W * sizeof(T) : 16;
  T value[W];

  struct alignas(alignment) Aligned {
    T value[W];
  };
  // The first `count` elements at `p`; the others are not set.
  SHARDWISE_HOST_DEVICE void load(const T* p, std::int64_t count, bool aligned) {
    if (aligned && count >= W) {
      const Aligned whole = *reinterpret_cast<const Aligned*>(p);
      for (int j = 0; j < W; ++j) value[j] = whole.value[j];
    } else {
      for (int j = 0; j < W; ++j)
        if (j < count) value[j] = p[j];
    }
  }
  SHARDWISE_HOST_DEVICE void store(T* p, std::int64_t count, bool aligned) const {
    if (aligned && count >= W) {
      Aligned whole;
      for (int j = 0; j < W; ++j) whole.value[j] = value[j];
      *reinterpret_cast<Aligned*>(p) = whole;
    } else {
      for (int j = 0; j < W; ++j)
        if (j < count) p[j] = value[j];
    }
  }
};

template <class T, int W = chunk_elements<T>>
bool is_aligned(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % Chunk<T, W>::alignment == 0;
}

inline std::int64_t chunks_of(std::int64_t n, std::int64_t width) { return (n + width - 1) / width; }

}  // namespace shardwise::detail::device
