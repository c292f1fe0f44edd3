// stream_copy, sum_terms: copies and sums that go past the caches where results are larger than they are. Saves
// reading each line before it is written: a third of the traffic of a large copy. Plain stores but on x86-64. Layer: comm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shardwise::detail {

// Outputs from this size on are streamed: smaller ones may still be in a cache when they are used.
inline constexpr std::size_t streamed_bytes = std::size_t{4} << 20;

#if defined(__x86_64__)
// Sixteen bytes of T, read and written at any address that a T may have.
template <class T>
struct StreamLane {
  typedef T Values __attribute__((vector_size(16), aligned(alignof(T)), may_alias));
  typedef T Aligned __attribute__((vector_size(16), may_alias));
  static constexpr std::int64_t count = 16 / sizeof(T);

  static void store(T* out, Values v) {
#if defined(__clang__)
    __builtin_nontemporal_store(static_cast<Aligned>(v), reinterpret_cast<Aligned*>(out));
#else
    typedef long long Line __attribute__((vector_size(16), may_alias));
    __builtin_ia32_movntdq(reinterpret_cast<Line*>(out), reinterpret_cast<Line>(v));
#endif
  }
};

// How many elements lie before the next line of the cache: a line that is streamed in parts is written twice.
template <class T>
std::int64_t before_line(const T* out, std::int64_t n) {
  const auto bytes = static_cast<std::int64_t>((64 - reinterpret_cast<std::uintptr_t>(out) % 64) % 64);
  const std::int64_t elements = bytes / static_cast<std::int64_t>(sizeof(T));
  return elements < n ? elements : n;
}

// An address that is only asked for, never read: it may lie behind the end.
inline void prefetch(const void* from, std::ptrdiff_t ahead) {
  __builtin_prefetch(
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead)));
}
#endif

// `ahead`: the distance in bytes to what is read next, 0 where that follows. A row of a box ends on a page that no
// hardware prefetcher leaves; asking for the next row line by line took Shard(0) -> Shard(1) from 0.95 to 0.77 of memcpy
// (asking for its first lines alone: no gain). stream_fence() must follow before another thread is told.
inline void stream_copy(void* to, const void* from, std::size_t bytes, std::ptrdiff_t ahead = 0) {
#if defined(__x86_64__)
  using Lane = StreamLane<char>;
  auto* out = static_cast<char*>(to);
  auto* in = static_cast<const char*>(from);
  auto left = static_cast<std::int64_t>(bytes);
  const std::int64_t head = before_line(out, left);
  std::memcpy(out, in, static_cast<std::size_t>(head));
  out += head, in += head, left -= head;
  for (; left >= 64; out += 64, in += 64, left -= 64) {
    if (ahead != 0) prefetch(in, ahead);
    Lane::Values v[4];
    for (int k = 0; k < 4; ++k) std::memcpy(&v[k], in + 16 * k, 16);
    for (int k = 0; k < 4; ++k) Lane::store(out + 16 * k, v[k]);
  }
  std::memcpy(out, in, static_cast<std::size_t>(left));
#else
  static_cast<void>(ahead);
  std::memcpy(to, from, bytes);
#endif
}

// outputs[o][i] = terms[0][i] + terms[1][i] + ..., in this order, for i < n, for all outputs: a sum stays in registers until all
// have it. Term by term over a line: vector by vector over the terms was 0.64, 0.70 of memcpy instead of 0.52, 0.54 (Partial ->
// Shard(0)) and 0.74, 0.83 instead of 0.65, 0.72 (Partial -> Shard(1)). The outputs are none of the terms. As for
// `ahead` and, where it is streamed, the fence: stream_copy. Never inlined into the loop over rows: there the latter was 0.68, and 0.65
// as a function of its own.
template <class T>
[[gnu::noinline]] void sum_terms(T* const* outputs, int output_count, const T* const* terms, int count, std::int64_t n,
                                 std::ptrdiff_t ahead, bool stream) {
  std::int64_t i = 0;
  const auto one_by_one = [&](std::int64_t end) {
    for (; i < end; ++i) {
      T sum = terms[0][i];
      for (int t = 1; t < count; ++t) sum += terms[t][i];
      for (int o = 0; o < output_count; ++o) outputs[o][i] = sum;
    }
  };
#if defined(__x86_64__)
  using Lane = StreamLane<T>;
  using Values = typename Lane::Values;
  const auto sum_at = [&](std::int64_t at) {
    Values sum = *reinterpret_cast<const Values*>(terms[0] + at);
    for (int t = 1; t < count; ++t) sum += *reinterpret_cast<const Values*>(terms[t] + at);
    return sum;
  };
  constexpr std::int64_t line = 4 * Lane::count;
  if (stream) one_by_one(before_line(outputs[0], n));
  for (; n - i >= line; i += line) {
    Values sum[4];
    std::memcpy(sum, terms[0] + i, 64);
    if (ahead != 0) prefetch(terms[0] + i, ahead);
    for (int t = 1; t < count; ++t) {
      const T* term = terms[t] + i;
      if (ahead != 0) prefetch(term, ahead);
      for (int k = 0; k < 4; ++k) sum[k] += *reinterpret_cast<const Values*>(term + k * Lane::count);
    }
    for (int o = 0; o < output_count; ++o) {
      T* out = outputs[o] + i;
      if (stream && reinterpret_cast<std::uintptr_t>(out) % 16 == 0) {
        for (int k = 0; k < 4; ++k) Lane::store(out + k * Lane::count, sum[k]);
      } else {
        std::memcpy(out, sum, 64);
      }
    }
  }
  for (; n - i >= Lane::count; i += Lane::count) {
    const Values sum = sum_at(i);
    for (int o = 0; o < output_count; ++o) std::memcpy(outputs[o] + i, &sum, 16);
  }
#else
  static_cast<void>(ahead), static_cast<void>(stream);
#endif
  one_by_one(n);
}

// Streamed stores are not ordered by a release: this orders them.
inline void stream_fence() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace shardwise::detail
