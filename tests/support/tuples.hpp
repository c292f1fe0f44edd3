// All tuples of given choices, the last position fastest: coordinates of a mesh, lists of placements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <shardwise/placement/placement.hpp>

namespace test {

template <class T>
std::vector<std::vector<T>> tuples(const std::vector<std::vector<T>>& choices) {
  std::vector<std::vector<T>> all{{}};
  for (const std::vector<T>& of : choices) {
    std::vector<std::vector<T>> longer;
    for (const std::vector<T>& tuple : all)
      for (const T& next : of) {
        longer.push_back(tuple);
        longer.back().push_back(next);
      }
    all = longer;
  }
  return all;
}

// One of these placements on each axis, in every way.
inline std::vector<std::vector<shardwise::detail::PlacementValue>>
lists(const std::vector<shardwise::detail::PlacementValue>& of, std::size_t axes) {
  return tuples(std::vector<std::vector<shardwise::detail::PlacementValue>>(axes, of));
}

inline std::vector<std::vector<std::int64_t>> coordinates(const std::vector<std::int64_t>& mesh) {
  std::vector<std::vector<std::int64_t>> choices;
  for (const std::int64_t k : mesh) {
    choices.emplace_back();
    for (std::int64_t i = 0; i < k; ++i) choices.back().push_back(i);
  }
  return tuples(choices);
}

}  // namespace test
