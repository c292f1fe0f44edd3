// Random numbers of a device: the Philox blocks of the host, so that a value depends on the seed, the draw and the element's global
// index alone. Layer: cuda.
#pragma once

#include <cstdint>

#include <shardwise/base/host_device.hpp>
#include <shardwise/base/philox.hpp>
#include <shardwise/cuda/bodies/index.hpp>

namespace shardwise::detail::device {

/// Each element = finish(value of its global index). Index: a block of Philox in a row.
template <class T, class Block, class Finish>
struct RandomBody {
  static constexpr std::int64_t lanes = philox_lanes<T>;
  T* out;
  std::int64_t first;  // global index of the first row
  std::int64_t length;
  Divider blocks;  // that a row meets at most
  TwoStrides<max_rank> rows;  // in the global tensor, in `out`
  Block block;
  Finish finish;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index) const {
    const std::int64_t row = blocks.divide(index);
    const Offsets offset = rows.at(row);
    const std::int64_t begin = first + offset.a;
    const std::int64_t number = begin / lanes + (index - row * blocks.divisor);
    const auto values = block(static_cast<std::uint64_t>(number));
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t i = number * lanes + lane - begin;
      if (i >= 0 && i < length) out[offset.b + i] = finish(values[static_cast<std::size_t>(lane)]);
    }
  }
};

}  // namespace shardwise::detail::device
