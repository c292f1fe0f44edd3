// A small generator (xorshift, Marsaglia 2003) for random cases that a seed repeats on any machine.
#pragma once

#include <cstdint>

namespace test {

struct Random {
  std::uint64_t state;
  std::int64_t below(std::int64_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<std::int64_t>((state >> 11) % static_cast<std::uint64_t>(n));
  }
};

}  // namespace test
