#include <shardwise/base/half.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

using namespace shardwise;

namespace {

// By definition, in double: the oracle of half's conversion to float.
double half_by_definition(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <class H>
H from_bits(unsigned bits) {
  H h;
  h.bits = static_cast<std::uint16_t>(bits);
  return h;
}

template <class H>
inline constexpr unsigned infinity_bits = 0x7c00;
template <>
inline constexpr unsigned infinity_bits<bfloat16> = 0x7f80;

}  // namespace

TEST_CASE_TEMPLATE("every bit pattern goes to float and back unchanged", H, half, bfloat16) {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const H h = from_bits<H>(bits);
    const float value = h;
    if ((bits & 0x7fffu) > infinity_bits<H>) {
      const H back(value);
      wrong += !std::isnan(value) || !std::isnan(static_cast<float>(back)) || ((back.bits ^ bits) & 0x8000u) != 0;
    } else {
      wrong += H(value).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("every half has the value that IEEE 754 gives its bits") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    if ((bits & 0x7c00u) == 0x7c00u) continue;
    const float value = from_bits<half>(bits);
    const double expected = half_by_definition(static_cast<std::uint16_t>(bits));
    wrong += static_cast<double>(value) != expected || std::signbit(value) != std::signbit(expected);
  }
  CHECK(wrong == 0);
  CHECK(static_cast<float>(from_bits<half>(0x7c00)) == std::numeric_limits<float>::infinity());
  CHECK(static_cast<float>(from_bits<half>(0xfc00)) == -std::numeric_limits<float>::infinity());
}

TEST_CASE_TEMPLATE("between two neighbours the nearest is taken, the even one from the middle", H, half, bfloat16) {
  int wrong = 0;
  for (unsigned sign : {0u, 0x8000u})
    for (unsigned bits = 0; bits + 1 < infinity_bits<H>; ++bits) {
      const unsigned below = bits | sign, above = (bits + 1) | sign;
      const float a = from_bits<H>(below), b = from_bits<H>(above);
      // Exact in double; in float it is too, but for bfloat16's smallest subnormals.
      const double middle_exact = (static_cast<double>(a) + static_cast<double>(b)) / 2;
      const auto middle = static_cast<float>(middle_exact);
      if (static_cast<double>(middle) != middle_exact) ++wrong;
      const unsigned even = (below & 1u) == 0 ? below : above;
      wrong += H(middle).bits != even;
      wrong += H(std::nextafter(middle, a)).bits != below;
      wrong += H(std::nextafter(middle, b)).bits != above;
      wrong += H(std::nextafter(a, b)).bits != below;
      wrong += H(std::nextafter(b, a)).bits != above;
    }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("what lies beyond the greatest value becomes infinity, from the middle on", H, half, bfloat16) {
  const auto greatest = static_cast<double>(static_cast<float>(from_bits<H>(infinity_bits<H> - 1)));
  const auto before = static_cast<double>(static_cast<float>(from_bits<H>(infinity_bits<H> - 2)));
  const auto middle = static_cast<float>(greatest + (greatest - before) / 2);
  CHECK(H(middle).bits == infinity_bits<H>);
  CHECK(H(-middle).bits == (infinity_bits<H> | 0x8000u));
  CHECK(H(std::nextafter(middle, 0.0f)).bits == infinity_bits<H> - 1);
  CHECK(H(std::numeric_limits<float>::infinity()).bits == infinity_bits<H>);
  CHECK(H(std::numeric_limits<float>::max()).bits == infinity_bits<H>);
}

TEST_CASE_TEMPLATE("NaN stays NaN, also with a payload in its lowest bits alone", H, half, bfloat16) {
  for (const std::uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu, 0xffffffffu}) {
    const H h(std::bit_cast<float>(bits));
    CHECK(std::isnan(static_cast<float>(h)));
    CHECK((h.bits >> 15) == (bits >> 31));
  }
}

TEST_CASE("the smallest values round to zero or to the smallest subnormal") {
  CHECK(half(0x1p-24f).bits == 1);
  CHECK(half(0x1p-25f).bits == 0);
  CHECK(half(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
  CHECK(half(-0x1p-26f).bits == 0x8000);
  CHECK(half(std::numeric_limits<float>::denorm_min()).bits == 0);
  CHECK(half(std::nextafter(0x1p-14f, 0.0f)).bits == 0x0400);
  CHECK(bfloat16(std::bit_cast<float>(0x00008000u)).bits == 0);
  CHECK(bfloat16(std::bit_cast<float>(0x00008001u)).bits == 1);
}

TEST_CASE_TEMPLATE("conversions are constant expressions", H, half, bfloat16) {
  static_assert(static_cast<float>(H(1.5f)) == 1.5f);
  static_assert(static_cast<float>(H(-2)) == -2.0f);
  static_assert(static_cast<float>(H(0.25)) == 0.25f);
  static_assert(sizeof(H) == 2);
  CHECK(H(1.0f) + H(2.0f) == 3.0f);
}
