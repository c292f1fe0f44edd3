// Random numbers of a device: the Philox blocks of the host, so that a value depends on the seed, the draw and the element's global
// index alone. Layer: cuda.
#pragma once

#include <cstdint>

#include <shardwise/base/host_device.hpp>
#include <shardwise/base/philox.hpp>

namespace shardwise::detail::device {

/// out[i] = finish(value of the element with global index first + i). Index: a block of Philox.
template <class T, class Block, class Finish>
struct RandomBody {
  static constexpr std::int64_t lanes = philox_lanes<T>;
  T* out;
  std::int64_t first;
  std::int64_t count;
  Block block;
  Finish finish;

  std::int64_t blocks() const { return count > 0 ? (first + count - 1) / lanes - first / lanes + 1 : 0; }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t b) const {
    const std::int64_t number = first / lanes + b;
    const auto values = block(static_cast<std::uint64_t>(number));
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t i = number * lanes + lane - first;
      if (i >= 0 && i < count) out[i] = finish(values[static_cast<std::size_t>(lane)]);
    }
  }
};

}  // namespace shardwise::detail::device
