// Small generators for random cases that a seed repeats on any machine.
#pragma once

#include <cstdint>

namespace test {

// xorshift (Marsaglia 2003); a state of 0 stays 0.
struct Random {
  std::uint64_t state;
  std::int64_t below(std::int64_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<std::int64_t>((state >> 11) % static_cast<std::uint64_t>(n));
  }
};

// splitmix64 (Steele, Lea, Flood 2014): any seed, and seeds next to each other are unrelated.
struct SplitMix {
  std::uint64_t state;
  std::int64_t below(std::int64_t n) {
    std::uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return static_cast<std::int64_t>(((z ^ (z >> 31)) >> 11) % static_cast<std::uint64_t>(n));
  }
};

}  // namespace test
