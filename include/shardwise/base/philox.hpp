// Random numbers by counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011). A value is a pure function of the seed,
// the number of the draw and the element's global index, so that a sharded tensor equals the one-device one and
// no rank generates what another one owns. Layer: base.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/host_device.hpp>

namespace shardwise {

/// The state of random draws: one draw is one tensor. PyTorch's default seed.
struct Generator {
  std::uint64_t seed = 67280421310721u;
  std::uint64_t draw = 0;
};

/// Ten rounds of Philox over a 128-bit counter with a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
  // Without it, g++ 12 at -O2 keeps the loop: 5.4 against 3.6 ns a float.
#if defined(__CUDA_ARCH__)
#pragma unroll
#elif !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xd2511f53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xcd9e8d57u} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  return counter;
}

namespace detail {

// Elements that share a block: four of 32 bits, two of 64.
template <RealElement T>
inline constexpr int philox_lanes = std::is_same_v<T, double> ? 2 : 4;

template <RealElement T>
using PhiloxValues = std::array<Accumulator<T>, philox_lanes<T>>;

constexpr std::array<std::uint32_t, 4> philox_block(std::uint64_t seed, std::uint64_t draw, std::uint64_t block) {
  return philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                     static_cast<std::uint32_t>(draw), static_cast<std::uint32_t>(draw >> 32)},
                    {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

constexpr float unit_float(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }
constexpr double unit_double(std::uint32_t low, std::uint32_t high) {
  return static_cast<double>(((std::uint64_t{high} << 32) | low) >> 11) * 0x1p-53;
}

// The largest T that is not above `value`, for a multiple of 2^-24 in [0, 1): rounding to nearest would give 1.
template <RealElement T>
constexpr float toward_zero(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if constexpr (std::is_same_v<T, bfloat16>) return std::bit_cast<float>(bits & 0xffff0000u);
  if constexpr (std::is_same_v<T, half>) return value < 0x1p-14f ? value : std::bit_cast<float>(bits & 0xffffe000u);
  return value;
}

// The values in [0, 1) of one block.
template <RealElement T>
struct UniformBlock {
  std::uint64_t seed;
  std::uint64_t draw;

  SHARDWISE_HOST_DEVICE PhiloxValues<T> operator()(std::uint64_t block) const {
    const auto w = philox_block(seed, draw, block);
    if constexpr (std::is_same_v<T, double>)
      return {unit_double(w[0], w[1]), unit_double(w[2], w[3])};
    else
      return {toward_zero<T>(unit_float(w[0])), toward_zero<T>(unit_float(w[1])), toward_zero<T>(unit_float(w[2])),
              toward_zero<T>(unit_float(w[3]))};
  }
};

// Box and Muller: two normal values from u in (0, 1] and v in [0, 1).
template <class W>
struct NormalPair {
  W first, second;
  SHARDWISE_HOST_DEVICE NormalPair(W u, W v) {
    const W radius = std::sqrt(W(-2) * std::log(u));
    const W angle = W(6.283185307179586476925) * v;
    first = radius * std::cos(angle);
    second = radius * std::sin(angle);
  }
};

template <RealElement T>
struct NormalBlock {
  std::uint64_t seed;
  std::uint64_t draw;

  SHARDWISE_HOST_DEVICE PhiloxValues<T> operator()(std::uint64_t block) const {
    const auto w = philox_block(seed, draw, block);
    if constexpr (std::is_same_v<T, double>) {
      const NormalPair<double> p(1.0 - unit_double(w[0], w[1]), unit_double(w[2], w[3]));
      return {p.first, p.second};
    } else {
      // All 32 bits of the first word: the tail then ends at 6.7 instead of 5.8 standard deviations.
      const NormalPair<float> p((static_cast<float>(w[0]) + 1.0f) * 0x1p-32f, unit_float(w[1]));
      const NormalPair<float> q((static_cast<float>(w[2]) + 1.0f) * 0x1p-32f, unit_float(w[3]));
      return {p.first, p.second, q.first, q.second};
    }
  }
};

template <RealElement T>
struct UniformRange {
  Accumulator<T> low;
  Accumulator<T> high;
  // A value that rounding has brought to `high` becomes `low`: the range is half open.
  SHARDWISE_HOST_DEVICE T operator()(Accumulator<T> unit) const {
    const T value = static_cast<T>(low + (high - low) * unit);
    return static_cast<Accumulator<T>>(value) < high ? value : static_cast<T>(low);
  }
};

template <RealElement T>
struct NormalScale {
  Accumulator<T> mean;
  Accumulator<T> deviation;
  SHARDWISE_HOST_DEVICE T operator()(Accumulator<T> normal) const { return static_cast<T>(mean + deviation * normal); }
};

template <RealElement T, class Block, class Finish>
T draw_at(std::int64_t index, const Block& block, const Finish& finish) {
  constexpr std::uint64_t lanes = philox_lanes<T>;
  const auto i = static_cast<std::uint64_t>(index);
  return finish(block(i / lanes)[i % lanes]);
}

template <RealElement T, class Block, class Finish>
void draw_run(T* out, std::int64_t first_index, std::int64_t count, const Block& block, const Finish& finish) {
  constexpr std::uint64_t lanes = philox_lanes<T>;
  auto i = static_cast<std::uint64_t>(first_index);
  const auto end = i + static_cast<std::uint64_t>(count > 0 ? count : 0);
  while (i < end) {  // `block` is long: it stands here once
    const auto values = block(i / lanes);
    do *out++ = finish(values[i % lanes]);
    while (++i < end && i % lanes != 0);
  }
}

}  // namespace detail

/// The uniform value in [0, 1) of the element with this global index: 24 random bits in a float, 53 in a double; the
/// 16-bit types take the float rounded toward zero.
template <RealElement T>
T uniform_at(std::uint64_t seed, std::uint64_t draw, std::int64_t index) {
  return detail::draw_at<T>(index, detail::UniformBlock<T>{seed, draw}, detail::UniformRange<T>{0, 1});
}

/// The standard normal value of the element with this global index.
template <RealElement T>
T normal_at(std::uint64_t seed, std::uint64_t draw, std::int64_t index) {
  return detail::draw_at<T>(index, detail::NormalBlock<T>{seed, draw}, detail::NormalScale<T>{0, 1});
}

/// `out[i] = low + (high - low) * uniform_at(seed, draw, first_index + i)`, in [low, high), for i in [0, count).
template <RealElement T>
void fill_uniform(T* out, std::uint64_t seed, std::uint64_t draw, std::int64_t first_index, std::int64_t count,
                  std::type_identity_t<T> low = T(0.0f), std::type_identity_t<T> high = T(1.0f)) {
  detail::draw_run(out, first_index, count, detail::UniformBlock<T>{seed, draw}, detail::UniformRange<T>{low, high});
}

/// `out[i] = mean + deviation * normal_at(seed, draw, first_index + i)` for i in [0, count).
template <RealElement T>
void fill_normal(T* out, std::uint64_t seed, std::uint64_t draw, std::int64_t first_index, std::int64_t count,
                 std::type_identity_t<T> mean = T(0.0f), std::type_identity_t<T> deviation = T(1.0f)) {
  detail::draw_run(out, first_index, count, detail::NormalBlock<T>{seed, draw},
                   detail::NormalScale<T>{mean, deviation});
}

}  // namespace shardwise
