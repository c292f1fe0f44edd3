// What tests of kernels share: values on the device between two guards, and comparison with what the host computes.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <vector>

#include <shardwise/base/dtype.hpp>
#include <shardwise/cuda/copy.hpp>
#include <shardwise/cuda/kernels.hpp>

#include "support/random.hpp"

/// A case that needs a device: left out, and said so, where there is none.
#define SHARDWISE_DEVICE_TEST(name) SHARDWISE_DEVICE_TEST_AS(DOCTEST_ANONYMOUS(shardwise_device_test_), name)
#define SHARDWISE_DEVICE_TEST_AS(body, name)              \
  static void body();                                     \
  DOCTEST_TEST_CASE(name) {                               \
    if (shardwise::cuda::is_available())                  \
      body();                                             \
    else                                                  \
      std::printf("SKIPPED: no CUDA device: %s\n", name); \
  }                                                       \
  static void body()

namespace test {

using shardwise::Accumulator;
using shardwise::bfloat16;
using shardwise::half;
using shardwise::detail::Buffer;
using shardwise::detail::Extents;
namespace device = shardwise::detail::device;
namespace kernels = shardwise::detail::kernels;
using shardwise::detail::copy_to_device;
using shardwise::detail::copy_to_host;
using shardwise::detail::device_buffer;

inline shardwise::cuda::StreamView stream() { return shardwise::cuda::current_stream(); }

/// A vector on the device, `shift` elements behind an aligned address, with bytes around it that nobody may write.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values, std::size_t shift = 0)
      : size_(values.size()), front_(guard + shift * sizeof(T)) {
    std::vector<unsigned char> bytes(front_ + size_ * sizeof(T) + guard, 0xab);
    if (size_ > 0) std::memcpy(bytes.data() + front_, values.data(), size_ * sizeof(T));
    buffer_ = device_buffer(bytes.size(), stream());
    copy_to_device(buffer_, Buffer::view(bytes.data()), bytes.size(), stream());
  }
  explicit OnDevice(std::size_t size, std::size_t shift = 0) : OnDevice(std::vector<T>(size), shift) {}

  T* data() const { return reinterpret_cast<T*>(buffer_.data() + front_); }
  /// The values, once everything on the stream is done.
  std::vector<T> read() const {
    std::vector<unsigned char> bytes(front_ + size_ * sizeof(T) + guard);
    copy_to_host(Buffer::view(bytes.data()), buffer_, bytes.size(), stream());
    stream().synchronize();
    bool untouched = true;
    for (std::size_t i = 0; i < front_; ++i) untouched = untouched && bytes[i] == 0xab;
    for (std::size_t i = front_ + size_ * sizeof(T); i < bytes.size(); ++i) untouched = untouched && bytes[i] == 0xab;
    CHECK(untouched);
    std::vector<T> values(size_);
    if (size_ > 0) std::memcpy(static_cast<void*>(values.data()), bytes.data() + front_, size_ * sizeof(T));
    return values;
  }

 private:
  static constexpr std::size_t guard = 64;
  std::size_t size_;
  std::size_t front_;
  Buffer buffer_;
};

template <class T>
std::vector<T> random_values(Random& random, std::int64_t n, double low = -2, double high = 2) {
  std::vector<T> values(static_cast<std::size_t>(n));
  const auto draw = [&] { return low + (high - low) * static_cast<double>(random.below(1 << 20)) / (1 << 20); };
  for (T& x : values) {
    if constexpr (shardwise::is_complex<T>)
      x = T(static_cast<typename T::value_type>(draw()), static_cast<typename T::value_type>(draw()));
    else if constexpr (std::is_integral_v<T>)
      x = static_cast<T>(std::is_unsigned_v<T> ? random.below(256) : random.below(201) - 100);
    else
      x = static_cast<T>(static_cast<Accumulator<T>>(draw()));
  }
  return values;
}

template <class T>
double rounding() {
  if constexpr (std::is_same_v<T, bfloat16>) return 0x1p-7;
  if constexpr (std::is_same_v<T, half>) return 0x1p-10;
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, std::complex<float>>) return 0x1p-22;
  if constexpr (std::is_integral_v<T>) return 0;
  return 0x1p-51;
}

template <class T>
double distance(const T& a, const T& b) {
  if constexpr (shardwise::is_complex<T>) {
    return std::abs(std::complex<double>(a) - std::complex<double>(b));
  } else {
    const auto x = static_cast<double>(static_cast<Accumulator<T>>(a)),
               y = static_cast<double>(static_cast<Accumulator<T>>(b));
    if (x == y || (std::isnan(x) && std::isnan(y))) return 0;
    return std::abs(x - y);
  }
}
template <class T>
double magnitude(const T& a) {
  if constexpr (shardwise::is_complex<T>)
    return std::abs(std::complex<double>(a));
  else
    return std::abs(static_cast<double>(static_cast<Accumulator<T>>(a)));
}

/// Equal up to `steps` roundings of T; `steps` 0: equal bit by bit, NaN included.
template <class T>
bool near(const std::vector<T>& got, const std::vector<T>& want, double steps) {
  if (got.size() != want.size()) return false;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double most = steps * rounding<T>() * std::max(1.0, magnitude(want[i]));
    if (distance(got[i], want[i]) <= most) continue;
    MESSAGE("element ", i, " of ", got.size(), ": off by ", distance(got[i], want[i]), ", at most ", most);
    return false;
  }
  return true;
}

}  // namespace test
