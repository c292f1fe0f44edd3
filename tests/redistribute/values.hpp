// Small tensors for the typed tests.
#pragma once

#include <cstdint>
#include <string>

#include <shardwise/tensor/factories.hpp>

namespace test {

// 1, 2, 3, ...: no element is zero.
template <class T, std::size_t R>
shardwise::Tensor<T, R> counting(const std::int64_t (&shape)[R]) {
  shardwise::Tensor<T, R> x(shardwise::detail::to_shape(shape));
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<T>(static_cast<float>(i + 1));
  return x;
}

template <class X>
bool all_are(const X& x, double value) {
  for (std::int64_t i = 0; i < x.size(); ++i)
    if (!(x.data()[i] == static_cast<typename X::value_type>(static_cast<float>(value)))) return false;
  return true;
}

// The message of what a call throws; empty where it does not.
template <class E, class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "";
}
inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace test
