// Teams: the threads that share one row or one tile. A body that is written over a team runs by one thread (SerialTeam), by a block
// of a device (BlockTeam) and, lane by lane, on the host (LaneTeam), where every step is done by all lanes before the next begins.
// Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <shardwise/base/host_device.hpp>

namespace shardwise::detail::device {

inline constexpr int max_lanes = 512;

// Threads for a row of n elements: a warp up to 256, a block of 256 beyond.
constexpr int lanes_of(std::int64_t n) { return n <= 256 ? 32 : 256; }

// Bytes that a team shares: what the body asks for, and one value a warp for sums.
template <class Body>
inline constexpr std::size_t team_bytes = 256;
template <class Body>
  requires(Body::shared_bytes > 256)
inline constexpr std::size_t team_bytes<Body> = Body::shared_bytes;

/// One thread. `each(n, f)` calls f(i) for i in [0, n); `reduce(n, start, take, merge)` gives all lanes the merger of what each lane
/// made of `start` by take(value, i) for its part of [0, n); `sync()` ends a step.
struct SerialTeam {
  template <class F>
  SHARDWISE_HOST_DEVICE void each(std::int64_t n, F f) const {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  template <class A, class Take, class Merge>
  SHARDWISE_HOST_DEVICE A reduce(std::int64_t n, A start, Take take, Merge) const {
    for (std::int64_t i = 0; i < n; ++i) take(start, i);
    return start;
  }
  // f() by one lane.
  template <class F>
  SHARDWISE_HOST_DEVICE void once(F f) const {
    f();
  }
  SHARDWISE_HOST_DEVICE void sync() const {}
};

/// `lanes` threads of a device, one after the other: lane l does what thread l does there.
struct LaneTeam {
  std::byte* memory;
  int lanes;

  template <class F>
  void each(std::int64_t n, F f) const {
    for (int lane = 0; lane < lanes; ++lane)
      for (std::int64_t i = lane; i < n; i += lanes) f(i);
  }
  template <class A, class Take, class Merge>
  A reduce(std::int64_t n, A start, Take take, Merge merge) const {
    A value[max_lanes] = {};
    for (int lane = 0; lane < lanes; ++lane) {
      value[lane] = start;
      for (std::int64_t i = lane; i < n; i += lanes) take(value[lane], i);
    }
    for (int warp = 0; warp < lanes; warp += 32)
      for (int step = 16; step > 0; step /= 2)
        for (int lane = 0; lane < step; ++lane)
          value[warp + lane] = merge(value[warp + lane], value[warp + lane + step]);
    A all = value[0];
    for (int warp = 32; warp < lanes; warp += 32) all = merge(all, value[warp]);
    return all;
  }
  template <class F>
  void once(F f) const {
    f();
  }
  template <class T>
  T* shared() const {
    return reinterpret_cast<T*>(memory);
  }
  void sync() const {}
};

#if defined(__CUDACC__)

/// A block of threads. `merge` is commutative: all lanes then get the same bits.
struct BlockTeam {
  std::byte* memory;

  template <class F>
  __device__ void each(std::int64_t n, F f) const {
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
  }
  template <class A, class Take, class Merge>
  __device__ A reduce(std::int64_t n, A start, Take take, Merge merge) const {
    A value = start;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) take(value, i);
    for (int step = 16; step > 0; step /= 2) value = merge(value, other(value, step));
    const int warps = static_cast<int>(blockDim.x) / 32;
    if (warps == 1) return value;
    A* const slot = shared<A>();
    __syncthreads();  // the last reduction has been read
    if (threadIdx.x % 32 == 0) slot[threadIdx.x / 32] = value;
    __syncthreads();
    value = slot[0];
    for (int w = 1; w < warps; ++w) value = merge(value, slot[w]);
    return value;
  }
  template <class F>
  __device__ void once(F f) const {
    if (threadIdx.x == 0) f();
  }
  template <class T>
  __device__ T* shared() const {
    return reinterpret_cast<T*>(memory);
  }
  __device__ void sync() const { __syncthreads(); }

 private:
  // The value of the lane whose number differs in one bit, word by word.
  template <class A>
  __device__ static A other(const A& value, int step) {
    static_assert(sizeof(A) % sizeof(unsigned) == 0 && sizeof(A) <= 16);
    unsigned words[sizeof(A) / sizeof(unsigned)];
    memcpy(words, &value, sizeof(A));
    for (unsigned& word : words) word = __shfl_xor_sync(0xffffffffu, word, step);
    A result;
    memcpy(&result, words, sizeof(A));
    return result;
  }
};

#endif

}  // namespace shardwise::detail::device
