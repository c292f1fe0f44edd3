// Elementwise bodies: one operand, two with broadcasting, casts, fills, the reduction of several buffers, dropout. A thread works on a
// chunk of 16 bytes where addresses allow. Layer: cuda.
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardwise/base/broadcast.hpp>
#include <shardwise/base/collective.hpp>
#include <shardwise/base/reduce_arithmetic.hpp>
#include <shardwise/base/scalar_functions.hpp>
#include <shardwise/cuda/bodies/chunk.hpp>
#include <shardwise/cuda/bodies/index.hpp>

namespace shardwise::detail::device {

using kernels::Binary;
using kernels::Unary;

/// The quotient of two complex numbers, scaled so that the squares do not overflow (Smith 1962).
template <class T>
SHARDWISE_HOST_DEVICE ComplexPair<T> complex_divide(ComplexPair<T> x, ComplexPair<T> y) {
  const T re = y.real < 0 ? -y.real : y.real, im = y.imag < 0 ? -y.imag : y.imag;
  if (re >= im) {
    const T r = y.imag / y.real, d = y.real + y.imag * r;
    return {(x.real + x.imag * r) / d, (x.imag - x.real * r) / d};
  }
  const T r = y.real / y.imag, d = y.real * r + y.imag;
  return {(x.real * r + x.imag) / d, (x.imag * r - x.real) / d};
}

template <class A>
SHARDWISE_HOST_DEVICE A conjugate_of(A x) {
  return x;
}
template <class T>
SHARDWISE_HOST_DEVICE ComplexPair<T> conjugate_of(ComplexPair<T> x) {
  return {x.real, -x.imag};
}
template <class A>
SHARDWISE_HOST_DEVICE A quotient(A x, A y) {
  return x / y;
}
template <class T>
SHARDWISE_HOST_DEVICE ComplexPair<T> quotient(ComplexPair<T> x, ComplexPair<T> y) {
  return complex_divide(x, y);
}

/// x / y, of complex numbers too.
struct DivideFunction {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A x, A y) const {
    return quotient(x, y);
  }
};
/// Of v, the other operand, and the gradient g: the gradient of a product.
struct ProductGradient {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A v, A g) const {
    return g * conjugate_of(v);
  }
};
/// Of the divisor v and the gradient g: the gradient of the numerator.
struct QuotientGradient {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A v, A g) const {
    return quotient(g, conjugate_of(v));
  }
};
/// Of the sum s of g a over what was repeated and the divisor v: the gradient of the divisor, -s / v^2.
struct DivisorGradient {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A s, A v) const {
    const A c = conjugate_of(v);
    return quotient(-s, c * c);
  }
};
/// What two operands become. Chosen when a kernel runs, not when it is compiled: all threads take the same branch, once a chunk, and
/// there is one kernel a type instead of one a function (nvcc takes half a second for each).
enum class Function : std::uint8_t {
  add,
  sub,
  mul,
  div,
  product_gradient,
  quotient_gradient,
  divisor_gradient,
  unary,  // the first of ten: f of the first operand
  derivative = 32  // the first of ten: f' of the first operand times the second
};
constexpr int number_of(Function f) { return static_cast<int>(f); }
constexpr Function function_of(Binary op) { return static_cast<Function>(op); }
constexpr Function function_of(Unary f) {
  return static_cast<Function>(static_cast<int>(Function::unary) + static_cast<int>(f));
}
constexpr Function derivative_of(Unary f) {
  return static_cast<Function>(static_cast<int>(Function::derivative) + static_cast<int>(f));
}

// x[j] = f(x[j], y[j]).
template <class A, int W, class F>
SHARDWISE_HOST_DEVICE void apply_to_all(A (&x)[W], const A (&y)[W], F f) {
  for (int j = 0; j < W; ++j) x[j] = static_cast<A>(f(x[j], y[j]));
}
template <Unary F>
struct OfFirst {
  template <class A>
  SHARDWISE_HOST_DEVICE A operator()(A x, A) const {
    return kernels::UnaryFunction<F>()(x);
  }
};

template <class A, int W>
SHARDWISE_HOST_DEVICE void apply(Function function, A (&x)[W], const A (&y)[W]) {
  switch (number_of(function)) {
    case number_of(Function::add): return apply_to_all(x, y, kernels::BinaryFunction<Binary::add>());
    case number_of(Function::sub): return apply_to_all(x, y, kernels::BinaryFunction<Binary::sub>());
    case number_of(Function::mul): return apply_to_all(x, y, kernels::BinaryFunction<Binary::mul>());
    case number_of(function_of(Unary::neg)): return apply_to_all(x, y, OfFirst<Unary::neg>());
    default: break;
  }
  if constexpr (FieldElement<A>) {
    switch (number_of(function)) {
      case number_of(Function::div): return apply_to_all(x, y, DivideFunction());
      case number_of(Function::product_gradient): return apply_to_all(x, y, ProductGradient());
      case number_of(Function::quotient_gradient): return apply_to_all(x, y, QuotientGradient());
      case number_of(Function::divisor_gradient): return apply_to_all(x, y, DivisorGradient());
      default: break;
    }
  }
  if constexpr (RealElement<A>) {
    switch (number_of(function)) {
#define SHARDWISE_UNARY(name)                                                                  \
  case number_of(function_of(Unary::name)): return apply_to_all(x, y, OfFirst<Unary::name>()); \
  case number_of(derivative_of(Unary::name)): return apply_to_all(x, y, kernels::UnaryDerivative<Unary::name>());
      SHARDWISE_UNARY(relu)
      SHARDWISE_UNARY(gelu)
      SHARDWISE_UNARY(gelu_tanh)
      SHARDWISE_UNARY(silu)
      SHARDWISE_UNARY(sigmoid)
      SHARDWISE_UNARY(tanh)
      SHARDWISE_UNARY(exp)
      SHARDWISE_UNARY(log)
      SHARDWISE_UNARY(sqrt)
#undef SHARDWISE_UNARY
      default: break;
    }
  }
}

/// An operand of ZipBody: elements on the device, or one number of the host that stands for all.
template <class T>
struct Operand {
  const T* elements = nullptr;
  Accumulator<T> number{};
};

/// out[i] = f(a[..], b[..]) with broadcasting. Index: a chunk of the output. out may be an operand that is not repeated.
template <class T>
struct ZipBody {
  using A = Accumulator<T>;
  static constexpr int wide = chunk_elements<T>;
  Operand<T> a, b;
  T* out;
  std::int64_t n;
  Function f;
  int width;  // elements of a chunk: `wide`, or 1 where rows or addresses do not allow it
  bool step_a, step_b;  // along the fastest dimension an operand walks, or stays
  TwoStrides<static_cast<int>(max_rank)> strides;  // from a chunk to offsets in elements

  ZipBody(Operand<T> first, Operand<T> second, const kernels::BroadcastLoops& loops, T* result, Function function)
      : a(first), b(second), out(result), n(1), f(function), width(wide),
        step_a(loops.a[0] != 0 && a.elements != nullptr), step_b(loops.b[0] != 0 && b.elements != nullptr) {
    for (int d = 0; d < loops.rank; ++d) n *= loops.size[d];
    if (loops.rank > 1 && loops.size[0] % wide != 0) width = 1;
    for (int d = 1; d < loops.rank; ++d)
      if (loops.a[d] % wide != 0 || loops.b[d] % wide != 0) width = 1;
    if (!is_aligned(out) || (step_a && !is_aligned(a.elements)) || (step_b && !is_aligned(b.elements))) width = 1;
    for (int d = 0; d < loops.rank; ++d)
      strides.add(d == 0 ? chunks_of(loops.size[0], width) : loops.size[d], d == 0 ? loops.a[0] * width : loops.a[d],
                  d == 0 ? loops.b[0] * width : loops.b[d]);
  }
  std::int64_t chunks() const { return strides.elements(); }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t c) const {
    const Offsets o = strides.at(c);
    const std::int64_t at = c * width;
    const std::int64_t count = n - at < width ? n - at : width;
    const bool whole = width == wide;
    A x[wide], y[wide];
    read(a, o.a, step_a, count, whole, x);
    read(b, o.b, step_b, count, whole, y);
    apply(f, x, y);
    Chunk<T> result;
    for (int j = 0; j < wide; ++j) result.value[j] = static_cast<T>(x[j]);
    result.store(out + at, count, whole);
  }

 private:
  SHARDWISE_HOST_DEVICE static void read(const Operand<T>& from, std::int64_t offset, bool steps, std::int64_t count,
                                         bool whole, A (&into)[wide]) {
    if (steps) {
      Chunk<T> chunk{};
      chunk.load(from.elements + offset, count, whole);
      for (int j = 0; j < wide; ++j) into[j] = static_cast<A>(chunk.value[j]);
    } else {
      const A value = from.elements != nullptr ? static_cast<A>(from.elements[offset]) : from.number;
      for (int j = 0; j < wide; ++j) into[j] = value;
    }
  }
};

/// Element of type U with the value of x: the 16-bit types by way of float; of a complex number that becomes real, the real part.
template <class U>
struct Convert {
  template <class T>
  SHARDWISE_HOST_DEVICE static U from(T x) {
    return static_cast<U>(static_cast<Accumulator<U>>(static_cast<Accumulator<T>>(x)));
  }
  template <class T>
  SHARDWISE_HOST_DEVICE static U from(ComplexPair<T> x) {
    return from(x.real);
  }
};
template <class U>
struct Convert<ComplexPair<U>> {
  template <class T>
  SHARDWISE_HOST_DEVICE static ComplexPair<U> from(T x) {
    return {Convert<U>::from(x), U(0)};
  }
  template <class T>
  SHARDWISE_HOST_DEVICE static ComplexPair<U> from(ComplexPair<T> x) {
    return {static_cast<U>(x.real), static_cast<U>(x.imag)};
  }
};

/// to[i] = from[i] in another type, which is chosen when the kernel runs. Index: four elements.
template <class T>
struct CastBody {
  static constexpr int width = 4;
  const T* from;
  void* to;
  std::int64_t n;
  DType to_type;
  bool aligned_from, aligned_to;

  CastBody(const T* x, void* y, DType type, std::int64_t count)
      : from(x), to(y), n(count), to_type(type), aligned_from(is_aligned<T, width>(x)),
        aligned_to(visit_dtype(type, [y]<class U>(U) { return is_aligned<U, width>(static_cast<const U*>(y)); })) {}
  std::int64_t chunks() const { return chunks_of(n, width); }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t c) const {
    const std::int64_t at = c * width;
    Chunk<T, width> x{};
    x.load(from + at, n - at, aligned_from);
    switch (to_type) {
      case DType::float32: return write<float>(at, x);
      case DType::float64: return write<double>(at, x);
      case DType::complex64: return write<ComplexPair<float>>(at, x);
      case DType::complex128: return write<ComplexPair<double>>(at, x);
      case DType::bfloat16: return write<bfloat16>(at, x);
      case DType::float16: return write<half>(at, x);
      case DType::int32: return write<std::int32_t>(at, x);
      case DType::int64: return write<std::int64_t>(at, x);
      case DType::uint8: return write<std::uint8_t>(at, x);
    }
  }

 private:
  template <class U>
  SHARDWISE_HOST_DEVICE void write(std::int64_t at, const Chunk<T, width>& x) const {
    Chunk<U, width> y;
    for (int j = 0; j < width; ++j) y.value[j] = Convert<U>::from(x.value[j]);
    y.store(static_cast<U*>(to) + at, n - at, aligned_to);
  }
};

/// out[i] = value. Index: a chunk.
template <class T>
struct FillBody {
  static constexpr int width = chunk_elements<T>;
  T* out;
  std::int64_t n;
  T number;
  bool aligned;

  FillBody(T* to, std::int64_t count, T value) : out(to), n(count), number(value), aligned(is_aligned(to)) {}
  std::int64_t chunks() const { return chunks_of(n, width); }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t c) const {
    const std::int64_t at = c * width;
    Chunk<T> chunk;
    for (int j = 0; j < width; ++j) chunk.value[j] = number;
    chunk.store(out + at, n - at, aligned);
  }
};

inline constexpr int max_terms = 64;

/// acc[j] = acc[j] op term[j]; an average is a sum that is divided at the end.
template <class T, int W, class Value>
SHARDWISE_HOST_DEVICE void combine(ReduceOp op, Value (&acc)[W], const T (&term)[W]) {
  using A = ReduceArithmetic<T>;
  if (op == ReduceOp::sum || op == ReduceOp::avg) {
    for (int j = 0; j < W; ++j) acc[j] = A::add(acc[j], A::load(term[j]));
  } else if (op == ReduceOp::product) {
    for (int j = 0; j < W; ++j) acc[j] = A::multiply(acc[j], A::load(term[j]));
  } else if constexpr (!is_complex<T>) {
    for (int j = 0; j < W; ++j) {
      const Value value = A::load(term[j]);
      acc[j] = (op == ReduceOp::max ? acc[j] < value : value < acc[j]) ? value : acc[j];
    }
  }
}

/// out[i] = terms[0][i] op terms[1][i] op ..., in this order. Index: a chunk. out may be one of the terms.
template <class T>
struct ReduceBody {
  using A = ReduceArithmetic<T>;
  static constexpr int width = chunk_elements<T>;
  T* out;
  std::int64_t n;
  int count;
  ReduceOp op;
  bool aligned;
  const T* terms[max_terms];

  ReduceBody(T* result, const void* const* from, int terms_count, std::int64_t elements, ReduceOp operation)
      : out(result), n(elements), count(terms_count), op(operation), aligned(is_aligned(result)) {
    for (int t = 0; t < count; ++t) {
      terms[t] = static_cast<const T*>(from[t]);
      aligned = aligned && is_aligned(terms[t]);
    }
    for (int t = count; t < max_terms; ++t) terms[t] = nullptr;
  }
  std::int64_t chunks() const { return chunks_of(n, width); }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t c) const {
    const std::int64_t at = c * width;
    typename A::Value acc[width];
    Chunk<T> term{};
    term.load(terms[0] + at, n - at, aligned);
    for (int j = 0; j < width; ++j) acc[j] = A::load(term.value[j]);
#if defined(__CUDA_ARCH__)
#pragma unroll 4
#endif
    for (int t = 1; t < count; ++t) {
      term.load(terms[t] + at, n - at, aligned);
      combine(op, acc, term.value);
    }
    for (int j = 0; j < width; ++j) term.value[j] = A::store(op == ReduceOp::avg ? A::divide(acc[j], count) : acc[j]);
    term.store(out + at, n - at, aligned);
  }
};

/// y = x / (1 - p) where uniform[i] >= p, else 0; mask says which. Index: an element. y may be x.
template <class T>
struct DropoutBody {
  const T* x;
  const float* uniform;
  T* y;
  std::uint8_t* mask;
  float threshold;
  Accumulator<T> factor;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    const bool keep = uniform[i] >= threshold;
    mask[i] = keep ? 1 : 0;
    y[i] = keep ? static_cast<T>(static_cast<Accumulator<T>>(x[i]) * factor) : static_cast<T>(0);
  }
};
template <class T>
struct DropoutGradientBody {
  const T* dy;
  const std::uint8_t* mask;
  T* dx;
  Accumulator<T> factor;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    dx[i] = mask[i] != 0 ? static_cast<T>(static_cast<Accumulator<T>>(dy[i]) * factor) : static_cast<T>(0);
  }
};

}  // namespace shardwise::detail::device
