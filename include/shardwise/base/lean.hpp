// What <span> and <utility> have too, for less of a unit: their functions are found among many, behind concepts and traits that a unit
// works out once per type, also inside of templates that nobody calls. Layer: base.
#pragma once

#include <cstddef>
#include <span>

namespace shardwise::detail {

// `count` elements at `data`.
template <class T>
constexpr std::span<T> span_of(T* data, std::size_t count) {
  return {data, count};
}

template <class T>
constexpr void swap_values(T& a, T& b) {
  T held = static_cast<T&&>(a);
  a = static_cast<T&&>(b);
  b = static_cast<T&&>(held);
}

// What `from` held; it holds T() then.
template <class T>
constexpr T taken(T& from) {
  T held = static_cast<T&&>(from);
  from = T();
  return held;
}

}  // namespace shardwise::detail
