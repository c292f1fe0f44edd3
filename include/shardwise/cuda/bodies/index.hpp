// Index arithmetic of kernels: division by a number that is known before the launch, the way from an index to the offsets of two
// operands. 64 bits throughout. Layer: cuda.
#pragma once

#include <bit>
#include <cstdint>

#include <shardwise/base/extents.hpp>
#include <shardwise/base/host_device.hpp>

namespace shardwise::detail::device {

SHARDWISE_HOST_DEVICE inline std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(a) * b) >> 64);
#endif
}

/// Division of numbers in [0, 2^63) by one divisor: a multiplication and a shift, where a device takes about 100 instructions to
/// divide (Granlund and Montgomery 1994). With l = ceil(log2 d), factor = floor(2^(63 + l) / d) + 1 exceeds the quotient by at most
/// 2^l / 2^(63 + l), so that n < 2^63 is divided exactly.
struct Divider {
  std::int64_t divisor = 1;
  std::uint64_t factor = 0;
  int shift = 0;

  Divider() = default;
  explicit Divider(std::int64_t d) : divisor(d) {
    if (d <= 1) return;
    __extension__ using Wide = unsigned __int128;
    const int l = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(d - 1)));
    factor = static_cast<std::uint64_t>((Wide{1} << (63 + l)) / static_cast<Wide>(d)) + 1;
    shift = l - 1;
  }
  SHARDWISE_HOST_DEVICE std::int64_t divide(std::int64_t n) const {
    if (divisor == 1) return n;
    return static_cast<std::int64_t>(multiply_high(static_cast<std::uint64_t>(n), factor) >> shift);
  }
};

struct Offsets {
  std::int64_t a;
  std::int64_t b;
};

/// Sizes with two strides each, the fastest dimension first: from an index in row-major order to two offsets.
template <int Most>
struct TwoStrides {
  int rank = 0;
  Divider size[Most];
  std::int64_t a[Most] = {};
  std::int64_t b[Most] = {};

  void add(std::int64_t n, std::int64_t step_a, std::int64_t step_b) {
    size[rank] = Divider(n);
    a[rank] = step_a;
    b[rank++] = step_b;
  }
  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= size[d].divisor;
    return n;
  }
  SHARDWISE_HOST_DEVICE Offsets at(std::int64_t index) const {
    Offsets o{0, 0};
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
    for (int d = 0; d < Most; ++d) {
      if (d >= rank) break;
      // The last dimension takes what is left: no division.
      const std::int64_t rest = d + 1 < rank ? size[d].divide(index) : 0;
      const std::int64_t here = index - rest * size[d].divisor;
      o.a += here * a[d];
      o.b += here * b[d];
      index = rest;
    }
    return o;
  }
};

}  // namespace shardwise::detail::device
