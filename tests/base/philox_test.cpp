#include <shardwise/base/philox.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

using namespace shardwise;

// Known answers published with Random123.
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) ==
              std::array<std::uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
static_assert(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
              std::array<std::uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
static_assert(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
              std::array<std::uint32_t, 4>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});

namespace {

struct Moments {
  double mean = 0, variance = 0, skewness = 0, kurtosis = 0, least = 0, greatest = 0;
};

template <class T>
Moments moments(const std::vector<T>& values) {
  Moments m;
  const auto n = static_cast<double>(values.size());
  m.least = m.greatest = static_cast<double>(values[0]);
  for (const T& value : values) {
    const auto v = static_cast<double>(value);
    m.mean += v / n;
    if (v < m.least) m.least = v;
    if (v > m.greatest) m.greatest = v;
  }
  for (const T& value : values) {
    const double d = static_cast<double>(value) - m.mean;
    m.variance += d * d / n;
    m.skewness += d * d * d / n;
    m.kurtosis += d * d * d * d / n;
  }
  m.skewness /= std::pow(m.variance, 1.5);
  m.kurtosis /= m.variance * m.variance;
  return m;
}

constexpr std::int64_t many = 200000;

}  // namespace

TEST_CASE_TEMPLATE("uniform values have the moments of the uniform distribution", T, float, double, bfloat16, half) {
  std::vector<T> values(many);
  fill_uniform(values.data(), 1, 2, 0, many);
  const Moments m = moments(values);
  const double slack = sizeof(T) == 2 ? 0.004 : 0.003;  // rounding toward zero costs bfloat16 a quarter of 2^-7
  CHECK(std::abs(m.mean - 0.5) < slack);
  CHECK(std::abs(m.variance - 1.0 / 12) < 0.002);
  CHECK(m.least >= 0);
  CHECK(m.greatest < 1);
  CHECK(m.greatest > 0.99);
}

TEST_CASE_TEMPLATE("normal values have the moments of the normal distribution", T, float, double, bfloat16, half) {
  std::vector<T> values(many);
  fill_normal(values.data(), 1, 2, 0, many);
  const Moments m = moments(values);
  CHECK(std::abs(m.mean) < 0.01);
  CHECK(std::abs(m.variance - 1) < 0.02);
  CHECK(std::abs(m.skewness) < 0.03);
  CHECK(std::abs(m.kurtosis - 3) < 0.06);
  CHECK(m.greatest > 4);
  CHECK(m.least < -4);
}

TEST_CASE_TEMPLATE("a run of values equals the values one by one, wherever it begins", T, float, double, bfloat16,
                   half) {
  int differing = 0;
  for (const std::int64_t begin : {0, 1, 2, 3, 4, 7, 1000003})
    for (const std::int64_t count : {0, 1, 2, 3, 4, 5, 8, 13}) {
      std::vector<T> uniform(static_cast<std::size_t>(count)), normal(static_cast<std::size_t>(count));
      fill_uniform(uniform.data(), 42, 7, begin, count);
      fill_normal(normal.data(), 42, 7, begin, count);
      for (std::int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(i);
        differing += static_cast<double>(uniform[at]) != static_cast<double>(uniform_at<T>(42, 7, begin + i));
        differing += static_cast<double>(normal[at]) != static_cast<double>(normal_at<T>(42, 7, begin + i));
      }
    }
  CHECK(differing == 0);
}

TEST_CASE("values depend on seed, draw and index, also above 2^32") {
  const std::int64_t far = std::int64_t{1} << 40;
  CHECK(uniform_at<float>(1, 0, 0) != uniform_at<float>(2, 0, 0));
  CHECK(uniform_at<float>(1, 0, 0) != uniform_at<float>(std::uint64_t{1} << 40 | 1, 0, 0));
  CHECK(uniform_at<float>(1, 0, 0) != uniform_at<float>(1, 1, 0));
  CHECK(uniform_at<float>(1, 0, 0) != uniform_at<float>(1, std::uint64_t{1} << 40, 0));
  CHECK(uniform_at<float>(1, 0, 0) != uniform_at<float>(1, 0, 1));
  CHECK(uniform_at<float>(1, 0, 0) != uniform_at<float>(1, 0, far));
  CHECK(uniform_at<float>(1, 0, 0) == uniform_at<float>(1, 0, 0));
}

TEST_CASE_TEMPLATE("a range is half open and hit from end to end", T, float, double, bfloat16, half) {
  std::vector<T> values(many);
  fill_uniform(values.data(), 3, 0, 5, many, T(-2.0f), T(6.0f));
  const Moments m = moments(values);
  CHECK(m.least >= -2);
  CHECK(m.least < -1.9);
  CHECK(m.greatest < 6);
  CHECK(m.greatest > 5.9);
  CHECK(std::abs(m.mean - 2) < 0.04);
  // So narrow that rounding to nearest would reach the upper end.
  fill_uniform(values.data(), 3, 0, 5, many, T(1.0f), T(1.0078125f));
  const Moments narrow = moments(values);
  CHECK(narrow.least >= 1);
  CHECK(narrow.least < 1.0001);
  CHECK(narrow.greatest < 1.0078125);
  fill_normal(values.data(), 3, 0, 5, many, T(3.0f), T(0.5f));
  const Moments scaled = moments(values);
  CHECK(std::abs(scaled.mean - 3) < 0.01);
  CHECK(std::abs(scaled.variance - 0.25) < 0.01);
}

TEST_CASE("rounding toward zero never reaches one") {
  const float last = 1.0f - 0x1p-24f;
  CHECK(static_cast<float>(half(detail::toward_zero<half>(last))) < 1);
  CHECK(static_cast<float>(bfloat16(detail::toward_zero<bfloat16>(last))) < 1);
  CHECK(static_cast<float>(half(detail::toward_zero<half>(0x1p-24f))) == 0x1p-24f);
}
