// From an element type that is known at run time to a type, for those that a kernel takes. Layer: cuda.
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

}  // namespace shardwise::detail::device
