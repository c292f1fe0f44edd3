// Copies and reductions of what two row-major local tensors share where they are products of index sets, run by run.
// Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/comm/reduce.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/placement/common_rows.hpp>

namespace shardwise::detail {

template <std::size_t Bytes>
void copy_short_runs(const CommonRows& rows, const std::byte* from, std::byte* to) {
  struct Element {
    std::byte bytes[Bytes];
  };
  constexpr auto size = static_cast<std::int64_t>(Bytes);
  rows.for_each([&](const CommonRuns::Run* runs, int count, std::int64_t a, std::int64_t b) {
    const std::byte* __restrict source = from + a * size;
    std::byte* __restrict target = to + b * size;
    for (int r = 0; r < count; ++r)
      for (std::int64_t i = 0; i < runs[r].size; ++i)
        std::memcpy(target + (runs[r].b + i) * size, source + (runs[r].a + i) * size, sizeof(Element));
  });
}

// Copies what both hold from a local tensor that holds `held` to one that holds `wanted`.
inline void copy_common(const Holding& held, const void* from, const Holding& wanted, void* to, std::size_t element) {
  const CommonRows rows(held, wanted);
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  if (rows.first_run() <= 8) {  // a call of memcpy a run would cost more than the run
    switch (element) {
      case 1: return copy_short_runs<1>(rows, source, target);
      case 2: return copy_short_runs<2>(rows, source, target);
      case 4: return copy_short_runs<4>(rows, source, target);
      case 8: return copy_short_runs<8>(rows, source, target);
      default: return copy_short_runs<16>(rows, source, target);
    }
  }
  const auto size = static_cast<std::int64_t>(element);
  const bool stream = static_cast<std::size_t>(wanted.size.elements()) * element >= streamed_bytes;
  rows.for_each([&](const CommonRuns::Run* runs, int count, std::int64_t a, std::int64_t b) {
    for (int r = 0; r < count; ++r) {
      const auto bytes = static_cast<std::size_t>(runs[r].size * size);
      const std::byte* in = source + (a + runs[r].a) * size;
      std::byte* out = target + (b + runs[r].b) * size;
      stream&& bytes >= 256 ? stream_copy(out, in, bytes) : static_cast<void>(std::memcpy(out, in, bytes));
    }
  });
  if (stream) stream_fence();
}

// Reduces what both hold, of `count` local tensors that hold `held`, in their order.
template <class Type>
void reduce_common(Type dtype, const Holding& held, const std::byte* const* terms, int count, const Holding& wanted,
                   std::byte* out, ReduceOp op) {
  const ReduceKernels& kernels = reduce_kernels_of(dtype);
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  const void* parts[max_ranks_reduced];
  const CommonRows rows(held, wanted);
  if (rows.first_run() >= 64) {
    rows.for_each([&](const CommonRuns::Run* runs, int n, std::int64_t a, std::int64_t b) {
      for (int r = 0; r < n; ++r) {
        for (int t = 0; t < count; ++t) parts[t] = terms[t] + (a + runs[r].a) * size;
        reduce_blocks(kernels, out + (b + runs[r].b) * size, parts, count, runs[r].size, op, false);
      }
    });
    return;
  }
  // Short runs are gathered, so that a reduction has enough to do.
  alignas(64) std::byte memory[16384];
  alignas(64) std::byte sum[512 * 16];
  const std::int64_t most = static_cast<std::int64_t>(sizeof(memory)) / 16 / count;
  const std::int64_t room = most < 512 ? most : 512;
  for (int t = 0; t < count; ++t) parts[t] = memory + t * room * size;
  rows.for_each([&](const CommonRuns::Run* runs, int n, std::int64_t a, std::int64_t b) {
    int r = 0;
    std::int64_t in = 0;  // elements of run r that are done
    while (r < n) {
      const int first = r;
      const std::int64_t first_in = in;
      const auto for_each_part = [&](auto&& part) {  // as many runs as there is room for
        r = first;
        in = first_in;
        for (std::int64_t filled = 0; r < n && filled < room;) {
          const std::int64_t m = runs[r].size - in < room - filled ? runs[r].size - in : room - filled;
          part(runs[r].a + in, runs[r].b + in, filled, static_cast<std::size_t>(m * size));
          filled += m;
          in += m;
          if (in == runs[r].size) ++r, in = 0;
        }
      };
      std::int64_t elements = 0;
      for (int t = 0; t < count; ++t)
        for_each_part([&](std::int64_t from, std::int64_t, std::int64_t at, std::size_t bytes) {
          std::memcpy(memory + (t * room + at) * size, terms[t] + (a + from) * size, bytes);
          elements = at + static_cast<std::int64_t>(bytes) / size;
        });
      reduce_blocks(kernels, sum, parts, count, elements, op, false);
      for_each_part([&](std::int64_t, std::int64_t to, std::int64_t at, std::size_t bytes) {
        std::memcpy(out + (b + to) * size, sum + at * size, bytes);
      });
    }
  });
}

}  // namespace shardwise::detail
