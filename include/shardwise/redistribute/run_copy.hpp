// Copies and reductions of what two row-major local tensors share where they are products of index sets, run by run.
// Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <shardwise/comm/reduce.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/placement/common_rows.hpp>

namespace shardwise::detail {

// Copies runs of elements of a fixed size: a call of memcpy a run would cost more than a short run.
template <std::size_t Bytes>
void copy_short_runs(const CommonRuns::Run* runs, int count, const std::byte* from, std::byte* to) {
  struct Element {
    std::byte bytes[Bytes];
  };
  constexpr auto size = static_cast<std::int64_t>(Bytes);
  for (int r = 0; r < count; ++r) {
    const std::byte* __restrict source = from + runs[r].a * size;
    std::byte* __restrict target = to + runs[r].b * size;
    for (std::int64_t i = 0; i < runs[r].size; ++i) std::memcpy(target + i * size, source + i * size, sizeof(Element));
  }
}

// Copies `count` pieces of a fixed size, at fixed distances in bytes: nothing is read to know where the next one is.
template <std::size_t Bytes>
void copy_strided(std::byte* __restrict to, const std::byte* __restrict from, std::int64_t count, std::int64_t to_step,
                  std::int64_t from_step) {
  // Packed on one side, as where blocks are dealt or collected, a step that is known saves an instruction a piece.
  constexpr auto packed = static_cast<std::int64_t>(Bytes);
  const auto copy = [&](auto next_to, auto next_from) {
    for (std::int64_t i = 0; i < count; ++i, to += next_to, from += next_from) std::memcpy(to, from, Bytes);
  };
  if (to_step == packed)
    copy(std::integral_constant<std::int64_t, packed>(), from_step);
  else if (from_step == packed)
    copy(to_step, std::integral_constant<std::int64_t, packed>());
  else
    copy(to_step, from_step);
}

// How far it is from a run to the next one, in this row or the next: no hardware prefetcher follows there. Asking for it took
// Partial -> BlockCyclic<1, 1024> from 1.2 to 0.8 of memcpy, Partial -> BlockCyclic<1, 64> from 2.0 to 1.4. 0 where there is none.
inline std::int64_t run_ahead(const CommonRuns::Run* runs, int count, int r, std::int64_t row_stride) {
  if (r + 1 < count) return runs[r + 1].a - runs[r].a;
  return row_stride == 0 ? 0 : runs[0].a + row_stride - runs[r].a;
}

// The same for runs that are alike: `last_ahead` bytes from the last of them to the next row.
template <class = void>
void copy_steps(const Steps& steps, const std::byte* from, std::byte* to, std::int64_t element, std::int64_t last_ahead,
                bool stream) {
  const std::int64_t next_to = steps.b * element, next_from = steps.a * element;
  switch (steps.size * element) {
    case 1: return copy_strided<1>(to, from, steps.count, next_to, next_from);
    case 2: return copy_strided<2>(to, from, steps.count, next_to, next_from);
    case 4: return copy_strided<4>(to, from, steps.count, next_to, next_from);
    case 6: return copy_strided<6>(to, from, steps.count, next_to, next_from);
    case 8: return copy_strided<8>(to, from, steps.count, next_to, next_from);
    case 12: return copy_strided<12>(to, from, steps.count, next_to, next_from);
    case 16: return copy_strided<16>(to, from, steps.count, next_to, next_from);
    case 24: return copy_strided<24>(to, from, steps.count, next_to, next_from);
    case 32: return copy_strided<32>(to, from, steps.count, next_to, next_from);
    case 64: return copy_strided<64>(to, from, steps.count, next_to, next_from);
    case 128: return copy_strided<128>(to, from, steps.count, next_to, next_from);
    default: break;
  }
  const auto bytes = static_cast<std::size_t>(steps.size * element);
  for (std::int64_t i = 0; i < steps.count; ++i, to += next_to, from += next_from) {
    if (stream && bytes >= 256)
      stream_copy(to, from, bytes, i + 1 < steps.count ? next_from : last_ahead);
    else
      std::memcpy(to, from, bytes);
  }
}

// From a to b, offsets in elements. `typical`: how long the runs are, about.
template <class = void>
void copy_runs(const CommonRuns::Run* runs, int count, const std::byte* from, std::byte* to, std::size_t element,
               std::int64_t typical, std::int64_t row_stride, bool stream) {
  if (typical <= 8) {
    switch (element) {
      case 1: return copy_short_runs<1>(runs, count, from, to);
      case 2: return copy_short_runs<2>(runs, count, from, to);
      case 4: return copy_short_runs<4>(runs, count, from, to);
      case 8: return copy_short_runs<8>(runs, count, from, to);
      default: return copy_short_runs<16>(runs, count, from, to);
    }
  }
  const auto size = static_cast<std::int64_t>(element);
  for (int r = 0; r < count; ++r) {
    const auto bytes = static_cast<std::size_t>(runs[r].size * size);
    const std::byte* source = from + runs[r].a * size;
    std::byte* target = to + runs[r].b * size;
    // Past the caches only where whole lines are written.
    if (stream && bytes >= 256)
      stream_copy(target, source, bytes, run_ahead(runs, count, r, row_stride) * size);
    else
      std::memcpy(target, source, bytes);
  }
}

// Copies what both hold from a local tensor that holds `held` to one that holds `wanted`; of that only what `cut` leaves.
template <class = void>
void copy_common(const Holding& held, const void* from, const Holding& wanted, void* to, std::size_t element,
                 const Cut& cut = {}) {
  const CommonRows rows(held, wanted, cut);
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  const auto size = static_cast<std::int64_t>(element);
  const bool stream = static_cast<std::size_t>(wanted.size.elements()) * element >= streamed_bytes;
  rows.for_each([&](const CommonRuns::Run* runs, int count, std::int64_t a, std::int64_t b, const Steps& steps) {
    const std::byte* const in = source + a * size;
    std::byte* const out = target + b * size;
    int done = 0;
    if (steps.count >= 8) {
      const std::int64_t ahead = rows.row_stride() == 0 ? 0 : rows.row_stride() - (steps.count - 1) * steps.a;
      copy_steps(steps, in + runs[0].a * size, out + runs[0].b * size, size, ahead * size, stream);
      done = steps.count < count ? static_cast<int>(steps.count) : count;
    }
    copy_runs(runs + done, count - done, in, out, element, rows.first_run(), rows.row_stride(), stream);
  });
  if (stream) stream_fence();
}

// Copies the same elements from a local tensor that holds `wanted` too, to where they are already in it.
template <class = void>
void copy_alike(const Holding& held, const void* from, const Holding& wanted, void* to, std::size_t element,
                const Cut& cut) {
  const CommonRows rows(held, wanted, cut);
  const auto size = static_cast<std::int64_t>(element);
  rows.for_each([&](const CommonRuns::Run* runs, int count, std::int64_t, std::int64_t b) {
    CommonRuns::Run same[CommonRows::block];
    for (int r = 0; r < count; ++r) same[r] = {runs[r].b, runs[r].b, runs[r].size};
    copy_runs(same, count, static_cast<const std::byte*>(from) + b * size, static_cast<std::byte*>(to) + b * size,
              element, rows.first_run(), 0, false);
  });
}

// A sum of real numbers whose runs are worth a pass each: no copy aside.
template <class T>
void sum_common(const CommonRows& rows, const std::byte* const* terms, int count, std::byte* out, bool stream) {
  const T* from[max_ranks_reduced];
  rows.for_each([&](const CommonRuns::Run* runs, int n, std::int64_t a, std::int64_t b) {
    for (int r = 0; r < n; ++r) {
      for (int t = 0; t < count; ++t) from[t] = reinterpret_cast<const T*>(terms[t]) + a + runs[r].a;
      T* const to = reinterpret_cast<T*>(out) + b + runs[r].b;
      const std::int64_t ahead = run_ahead(runs, n, r, rows.row_stride()) * static_cast<std::int64_t>(sizeof(T));
      sum_terms(&to, 1, from, count, runs[r].size, ahead, stream);
    }
  });
  if (stream) stream_fence();
}

// Reduces what both hold, of `count` local tensors that hold `held`, in their order.
template <class Type>
void reduce_common(Type dtype, const Holding& held, const std::byte* const* terms, int count, const Holding& wanted,
                   std::byte* out, ReduceOp op, const Cut& cut = {}) {
  const ReduceKernels& kernels = reduce_kernels_of(dtype);
  const std::size_t element = size_of(dtype);
  const auto size = static_cast<std::int64_t>(element);
  const void* parts[max_ranks_reduced];
  const CommonRows rows(held, wanted, cut);
  if (op == ReduceOp::sum && rows.first_run() >= 16) {
    const bool stream =
        rows.first_run() * size >= 256 && static_cast<std::size_t>(wanted.size.elements() * size) >= streamed_bytes;
    if (dtype == DType::float32) return sum_common<float>(rows, terms, count, out, stream);
    if (dtype == DType::float64) return sum_common<double>(rows, terms, count, out, stream);
  }
  if (rows.first_run() >= 512) {
    rows.for_each([&](const CommonRuns::Run* runs, int n, std::int64_t a, std::int64_t b) {
      for (int r = 0; r < n; ++r) {
        for (int t = 0; t < count; ++t) parts[t] = terms[t] + (a + runs[r].a) * size;
        reduce_blocks(kernels, out + (b + runs[r].b) * size, parts, count, runs[r].size, op, false);
      }
    });
    return;
  }
  // Shorter runs are gathered, in the first-level cache, so that a reduction has enough to do.
  constexpr int most = 512;
  alignas(64) std::byte memory[16384];
  alignas(64) std::byte sum[most * 16];
  const std::int64_t fits = static_cast<std::int64_t>(sizeof(memory)) / size / count;
  const std::int64_t room = fits < most ? fits : most;
  for (int t = 0; t < count; ++t) parts[t] = memory + t * room * size;
  // Runs that are alike: in strided loops.
  const auto reduce_steps = [&](const CommonRuns::Run& first, const Steps& steps, std::int64_t a, std::int64_t b) {
    const std::int64_t width = steps.size < room ? steps.size : room;
    const std::int64_t most_runs = room / width;
    for (std::int64_t i = 0; i < steps.count; i += most_runs)
      for (std::int64_t at = 0; at < steps.size; at += width) {
        const std::int64_t here = steps.count - i < most_runs ? steps.count - i : most_runs;
        const std::int64_t m = steps.size - at < width ? steps.size - at : width;
        for (int t = 0; t < count; ++t)
          copy_steps({here, m, steps.a, m}, terms[t] + (a + first.a + i * steps.a + at) * size,
                     memory + t * room * size, size, 0, false);
        reduce_blocks(kernels, sum, parts, count, here * m, op, false);
        copy_steps({here, m, m, steps.b}, sum, out + (b + first.b + i * steps.b + at) * size, size, 0, false);
      }
  };
  rows.for_each([&](const CommonRuns::Run* runs, int n, std::int64_t a, std::int64_t b, const Steps& steps) {
    CommonRuns::Run in[CommonRows::block];
    CommonRuns::Run back[CommonRows::block];
    int r = 0;
    if (steps.count >= 8) {
      reduce_steps(runs[0], steps, a, b);
      r = steps.count < n ? static_cast<int>(steps.count) : n;
    }
    std::int64_t done = 0;  // of run r
    while (r < n) {
      int pieces = 0;
      std::int64_t filled = 0;
      while (r < n && filled < room) {
        const std::int64_t m = runs[r].size - done < room - filled ? runs[r].size - done : room - filled;
        in[pieces] = {runs[r].a + done, filled, m};
        back[pieces++] = {filled, runs[r].b + done, m};
        filled += m;
        done += m;
        if (done == runs[r].size) ++r, done = 0;
      }
      for (int t = 0; t < count; ++t)
        copy_runs(in, pieces, terms[t] + a * size, memory + t * room * size, element, rows.first_run(), 0, false);
      reduce_blocks(kernels, sum, parts, count, filled, op, false);
      copy_runs(back, pieces, sum, out + b * size, element, rows.first_run(), 0, false);
    }
  });
}

}  // namespace shardwise::detail
