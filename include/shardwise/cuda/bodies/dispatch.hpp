// From an element type, or a width, that is known at run time to one of the compiler's. Layer: cuda.
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail::device {

// Calls f with a value of each type that `Takes<T>` is true of; throws for the others, naming `what`.
template <template <class> class Takes, class F>
void visit_some(const char* what, DType dtype, F&& f) {
  visit_dtype(dtype, [&]<class T>(T value) {
    if constexpr (Takes<T>::value)
      f(value);
    else
      fail(text("shardwise: ", what, " has no meaning for ", to_string(dtype)));
  });
}
template <class T>
using TakesReal = std::bool_constant<RealElement<T>>;
template <class T>
using TakesField = std::bool_constant<FieldElement<T>>;
template <class T>
using TakesAll = std::true_type;

// f(bytes) with a constant: units of 1, 2, 4, 8 or 16 bytes.
template <class F>
auto with_unit(int bytes, F&& f) {
  switch (bytes) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 4: return f(std::integral_constant<int, 4>());
    case 8: return f(std::integral_constant<int, 8>());
    default: return f(std::integral_constant<int, 16>());
  }
}

}  // namespace shardwise::detail::device
