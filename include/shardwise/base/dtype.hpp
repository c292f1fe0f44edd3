// Element types: the closed list, its run-time tag, the type in which sums are kept. Layer: base.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <shardwise/base/half.hpp>

namespace shardwise {

/// The run-time tag of an element type.
enum class DType : std::uint8_t {
  float32,
  float64,
  complex64,
  complex128,
  bfloat16,
  float16,
  int32,
  int64,
  uint8,
};

namespace detail {

template <class T>
inline constexpr int dtype_index = -1;
template <>
inline constexpr int dtype_index<float> = 0;
template <>
inline constexpr int dtype_index<double> = 1;
template <>
inline constexpr int dtype_index<bfloat16> = 4;
template <>
inline constexpr int dtype_index<half> = 5;
template <>
inline constexpr int dtype_index<std::int32_t> = 6;
template <>
inline constexpr int dtype_index<std::int64_t> = 7;
template <>
inline constexpr int dtype_index<std::uint8_t> = 8;

// std::complex is recognised by its members: <complex> brings <sstream> (+200 ms a unit), which core.hpp
// need not pay for users without complex numbers.
template <class T>
concept StdComplex = requires(const T& z) {
  typename T::value_type;
  z.real();
  z.imag();
} && sizeof(T) == 2 * sizeof(typename T::value_type);
// One concept each: nvcc 13 rejects a specialisation with a requires-clause of its own.
template <class T, class Part>
concept StdComplexOf = StdComplex<T> && std::same_as<typename T::value_type, Part>;
template <StdComplexOf<float> T>
inline constexpr int dtype_index<T> = 2;
template <StdComplexOf<double> T>
inline constexpr int dtype_index<T> = 3;

// What erased code sees in place of std::complex: the same bytes, the arithmetic that reductions need.
template <class T>
struct ComplexPair {
  T real;
  T imag;

  ComplexPair() = default;
  constexpr ComplexPair(T re, T im) : real(re), imag(im) {}
  constexpr explicit ComplexPair(int re) : real(static_cast<T>(re)), imag(0) {}
  friend constexpr ComplexPair operator+(ComplexPair a, ComplexPair b) { return {a.real + b.real, a.imag + b.imag}; }
  friend constexpr ComplexPair operator-(ComplexPair a, ComplexPair b) { return {a.real - b.real, a.imag - b.imag}; }
  constexpr ComplexPair operator-() const { return {-real, -imag}; }
  friend constexpr ComplexPair operator*(ComplexPair a, ComplexPair b) {
    return {a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real};
  }
  friend constexpr ComplexPair operator/(ComplexPair a, ComplexPair b) {  // b is a real count
    return {a.real / b.real, a.imag / b.real};
  }
};
template <>
inline constexpr int dtype_index<ComplexPair<float>> = 2;
template <>
inline constexpr int dtype_index<ComplexPair<double>> = 3;

}  // namespace detail

/// An element type of the library.
template <class T>
concept Element = detail::dtype_index<T> >= 0;

template <Element T>
inline constexpr DType dtype_of = static_cast<DType>(detail::dtype_index<T>);

template <class T>
inline constexpr bool is_complex = detail::dtype_index<T> == 2 || detail::dtype_index<T> == 3;

/// Real floating point: what exp, relu, division and gradients are defined for.
template <class T>
concept RealElement =
    std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16> || std::same_as<T, half>;

/// What a gradient may have: real or complex floating point.
template <class T>
concept FieldElement = RealElement<T> || is_complex<T>;

/// The type in which products and long sums of T are kept: float for the 16-bit types, T otherwise.
template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, bfloat16> || std::is_same_v<T, half>, float, T>;

namespace detail::kernels {

/// The type in which whole-tensor sums are kept: double for float and the 16-bit types, 64 bits for the integers.
template <class T>
using SumAccumulator =
    std::conditional_t<std::is_integral_v<T>, std::int64_t, std::conditional_t<RealElement<T>, double, T>>;

}  // namespace detail::kernels

constexpr std::size_t size_of(DType type) {
  constexpr std::size_t sizes[] = {4, 8, 8, 16, 2, 2, 4, 8, 1};
  return sizes[static_cast<int>(type)];
}

constexpr const char* to_string(DType type) {
  constexpr const char* names[] = {"float", "double", "complex<float>", "complex<double>", "bfloat16", "half",
                                   "int32", "int64",  "uint8"};
  return names[static_cast<int>(type)];
}

/// Calls `f` with a value of the element type that `type` names (`detail::ComplexPair` for the complex ones):
/// one switch, at the edge of erased code.
template <class F>
constexpr decltype(auto) visit_dtype(DType type, F&& f) {
  switch (type) {
    case DType::float32: return f(float{});
    case DType::float64: return f(double{});
    case DType::complex64: return f(detail::ComplexPair<float>{});
    case DType::complex128: return f(detail::ComplexPair<double>{});
    case DType::bfloat16: return f(bfloat16{});
    case DType::float16: return f(half{});
    case DType::int32: return f(std::int32_t{});
    case DType::int64: return f(std::int64_t{});
    case DType::uint8: break;
  }
  return f(std::uint8_t{});
}

namespace detail {

// The same for n elements of which complex ones are two real ones each, for loops to which that is all one: f(value, count).
template <class F>
void visit_dtype_as_reals(DType type, std::int64_t n, F&& f) {
  switch (type) {
    case DType::complex64: n *= 2; [[fallthrough]];
    case DType::float32: return f(float{}, n);
    case DType::complex128: n *= 2; [[fallthrough]];
    case DType::float64: return f(double{}, n);
    case DType::bfloat16: return f(bfloat16{}, n);
    case DType::float16: return f(half{}, n);
    case DType::int32: return f(std::int32_t{}, n);
    case DType::int64: return f(std::int64_t{}, n);
    case DType::uint8: break;
  }
  f(std::uint8_t{}, n);
}

}  // namespace detail

}  // namespace shardwise
