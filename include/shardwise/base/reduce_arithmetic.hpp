// ReduceArithmetic: what a reduction does with an element of each type, on the host and on a device. Layer: base.
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/host_device.hpp>

namespace shardwise::detail {

// The arithmetic of T: `Value` is what terms become, `add` and `multiply` wrap around where integers would overflow
// (signed overflow is undefined), `divide` is the end of an average.
template <class T>
struct ReduceArithmetic {
  using Value = Accumulator<T>;
  SHARDWISE_HOST_DEVICE static Value load(const T& x) { return static_cast<Value>(x); }
  SHARDWISE_HOST_DEVICE static T store(Value x) { return static_cast<T>(x); }
  SHARDWISE_HOST_DEVICE static Value add(Value a, Value b) { return a + b; }
  SHARDWISE_HOST_DEVICE static Value multiply(Value a, Value b) { return a * b; }
  SHARDWISE_HOST_DEVICE static Value divide(Value a, int count) { return a / static_cast<Value>(count); }
};

template <class T>
  requires std::is_integral_v<T>
struct ReduceArithmetic<T> {
  // Bytes are kept in 32 bits: the same modulo 256, and an average does not wrap.
  using Value = std::conditional_t<sizeof(T) == 1, std::int32_t, T>;
  using Unsigned = std::make_unsigned_t<Value>;
  SHARDWISE_HOST_DEVICE static Value load(T x) { return static_cast<Value>(x); }
  SHARDWISE_HOST_DEVICE static T store(Value x) { return static_cast<T>(x); }
  SHARDWISE_HOST_DEVICE static Value add(Value a, Value b) {
    return static_cast<Value>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
  }
  SHARDWISE_HOST_DEVICE static Value multiply(Value a, Value b) {
    return static_cast<Value>(static_cast<Unsigned>(a) * static_cast<Unsigned>(b));
  }
  SHARDWISE_HOST_DEVICE static Value divide(Value a, int count) { return a / static_cast<Value>(count); }
};

template <class T>
struct ReduceArithmetic<ComplexPair<T>> {
  using Value = ComplexPair<T>;
  SHARDWISE_HOST_DEVICE static Value load(const Value& x) { return x; }
  SHARDWISE_HOST_DEVICE static Value store(const Value& x) { return x; }
  SHARDWISE_HOST_DEVICE static Value add(Value a, Value b) { return a + b; }
  SHARDWISE_HOST_DEVICE static Value multiply(Value a, Value b) { return a * b; }
  SHARDWISE_HOST_DEVICE static Value divide(Value a, int count) { return a / Value(count); }
};

}  // namespace shardwise::detail
