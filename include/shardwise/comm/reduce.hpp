// reduce_terms: the reduction of several buffers, element by element, in the order of the terms, so that every
// backend that reduces by itself gives the same bits. Does not communicate. Layer: comm.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/stream.hpp>

namespace shardwise {

namespace detail {

// The arithmetic of T: `Value` is what terms become, `add` and `multiply` wrap around where integers would overflow
// (signed overflow is undefined), `divide` is the end of an average.
template <class T>
struct ReduceArithmetic {
  using Value = Accumulator<T>;
  static Value load(const T& x) { return static_cast<Value>(x); }
  static T store(Value x) { return static_cast<T>(x); }
  static Value add(Value a, Value b) { return a + b; }
  static Value multiply(Value a, Value b) { return a * b; }
  static Value divide(Value a, int count) { return a / static_cast<Value>(count); }
};

template <class T>
  requires std::is_integral_v<T>
struct ReduceArithmetic<T> {
  // Bytes are kept in 32 bits: the same modulo 256, and an average does not wrap.
  using Value = std::conditional_t<sizeof(T) == 1, std::int32_t, T>;
  using Unsigned = std::make_unsigned_t<Value>;
  static Value load(T x) { return static_cast<Value>(x); }
  static T store(Value x) { return static_cast<T>(x); }
  static Value add(Value a, Value b) { return static_cast<Value>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b)); }
  static Value multiply(Value a, Value b) {
    return static_cast<Value>(static_cast<Unsigned>(a) * static_cast<Unsigned>(b));
  }
  static Value divide(Value a, int count) { return a / static_cast<Value>(count); }
};

template <class T>
struct ComplexReduceArithmetic {
  using Value = ComplexPair<T>;
  static Value add(Value a, Value b) { return a + b; }
  static Value multiply(Value a, Value b) { return a * b; }
  static Value divide(Value a, int count) { return a / Value(count); }
};
template <class T>
struct ReduceArithmetic<ComplexPair<T>> : ComplexReduceArithmetic<T> {
  static ComplexPair<T> load(const ComplexPair<T>& x) { return x; }
  static ComplexPair<T> store(const ComplexPair<T>& x) { return x; }
};
template <StdComplex T>
struct ReduceArithmetic<T> : ComplexReduceArithmetic<typename T::value_type> {
  static ComplexPair<typename T::value_type> load(const T& x) {
    return std::bit_cast<ComplexPair<typename T::value_type>>(x);
  }
  static T store(const ComplexPair<typename T::value_type>& x) { return std::bit_cast<T>(x); }
};

template <class T, ReduceOp op>
auto reduce_pair(typename ReduceArithmetic<T>::Value a, const T& term) {
  using A = ReduceArithmetic<T>;
  const auto b = A::load(term);
  if constexpr (op == ReduceOp::product)
    return A::multiply(a, b);
  else if constexpr (op == ReduceOp::max)
    return a < b ? b : a;
  else if constexpr (op == ReduceOp::min)
    return b < a ? b : a;
  else
    return A::add(a, b);
}

// What is reduced often: sums of float and double. Only these passes are unrolled over the terms and specialised for the block
// size: for all nine types and five operations that was a third of a small program's code and compile time.
template <class T, ReduceOp op>
inline constexpr bool unrolled_reduction = op == ReduceOp::sum && std::is_floating_point_v<T>;

// g++ at -O2 vectorises only loops whose count it knows and whose pointers cannot overlap: hence blocks of a fixed
// size, summed in a local array. It also lets `out` be one of the terms. An average is a sum, divided at the end.
template <class T, ReduceOp op>
struct ReduceBlocks {
  using A = ReduceArithmetic<T>;
  using Value = typename A::Value;
  static constexpr std::int64_t block = 128;

  // acc[i] = acc[i] op t[0][i] op ... ; the first pass starts from t[0].
  template <bool first, int K>
  static void pass(Value* acc, const T* const* terms, std::int64_t at, std::int64_t n) {
    const T* t[K];
    for (int k = 0; k < K; ++k) t[k] = terms[k] + at;
    for (std::int64_t i = 0; i < n; ++i) {
      Value v = first ? A::load(t[0][i]) : reduce_pair<T, op>(acc[i], t[0][i]);
      for (int k = 1; k < K; ++k) v = reduce_pair<T, op>(v, t[k][i]);
      acc[i] = v;
    }
  }

  // Inlined twice where it is unrolled, once with n a constant.
  [[gnu::always_inline]] static inline void one_block(T* out, const T* const* terms, int count, std::int64_t at,
                                                      std::int64_t n, bool average, bool stream) {
    Value acc[block];
    int done = 1;
    if constexpr (unrolled_reduction<T, op>) {
      switch (count) {
        case 1: pass<true, 1>(acc, terms, at, n); break;
        case 2: pass<true, 2>(acc, terms, at, n), done = 2; break;
        case 3: pass<true, 3>(acc, terms, at, n), done = 3; break;
        case 4:
        case 5:
        case 6:
        case 7: pass<true, 4>(acc, terms, at, n), done = 4; break;
        default: pass<true, 8>(acc, terms, at, n), done = 8; break;
      }
      for (; count - done >= 8; done += 8) pass<false, 8>(acc, terms + done, at, n);
      for (; count - done >= 2; done += 2) pass<false, 2>(acc, terms + done, at, n);
    } else {
      pass<true, 1>(acc, terms, at, n);
    }
    for (; done < count; ++done) pass<false, 1>(acc, terms + done, at, n);
    if constexpr (op == ReduceOp::sum)
      if (average)
        for (std::int64_t i = 0; i < n; ++i) acc[i] = A::divide(acc[i], count);
    if (!stream) {
      for (std::int64_t i = 0; i < n; ++i) out[at + i] = A::store(acc[i]);
      return;
    }
    T result[block];
    for (std::int64_t i = 0; i < n; ++i) result[i] = A::store(acc[i]);
    stream_copy(out + at, result, static_cast<std::size_t>(n) * sizeof(T));
  }

  static void run(T* out, const T* const* terms, int count, std::int64_t n, bool average, bool stream) {
    std::int64_t at = 0;
    if constexpr (unrolled_reduction<T, op>) {
      for (; n - at >= block; at += block) one_block(out, terms, count, at, block, average, stream);
      if (at < n) one_block(out, terms, count, at, n - at, average, false);
    } else {
      for (; at < n; at += block) one_block(out, terms, count, at, n - at < block ? n - at : block, average, stream);
    }
    if (stream) stream_fence();
  }
};

}  // namespace detail

/// Whether `op` means something for T: complex numbers have no order.
template <Element T>
constexpr bool reducible(ReduceOp op) {
  return !(is_complex<T> && (op == ReduceOp::max || op == ReduceOp::min));
}

/// out[i] = terms[0][i] op terms[1][i] op ... op terms[count - 1][i], in this order, for i < n. 16-bit types are
/// accumulated in float; an average divides at the end. `out` may be one of the terms; count >= 1.
template <Element T>
void reduce_terms(T* out, const T* const* terms, int count, std::int64_t n, ReduceOp op, bool stream) {
  switch (op) {
    case ReduceOp::sum: return detail::ReduceBlocks<T, ReduceOp::sum>::run(out, terms, count, n, false, stream);
    case ReduceOp::avg: return detail::ReduceBlocks<T, ReduceOp::sum>::run(out, terms, count, n, true, stream);
    case ReduceOp::product: return detail::ReduceBlocks<T, ReduceOp::product>::run(out, terms, count, n, false, stream);
    case ReduceOp::max:
      if constexpr (!is_complex<T>)
        return detail::ReduceBlocks<T, ReduceOp::max>::run(out, terms, count, n, false, stream);
      break;
    case ReduceOp::min:
      if constexpr (!is_complex<T>)
        return detail::ReduceBlocks<T, ReduceOp::min>::run(out, terms, count, n, false, stream);
      break;
  }
  detail::fail("shardwise::reduce_terms: complex numbers have no maximum and no minimum");
}

template <Element T>
void reduce_terms(T* out, const T* const* terms, int count, std::int64_t n, ReduceOp op) {
  reduce_terms(out, terms, count, n, op, static_cast<std::size_t>(n) * sizeof(T) >= detail::streamed_bytes);
}

namespace detail {

// At most so many terms meet in one reduction.
inline constexpr int max_ranks_reduced = 1024;

// The same for code that knows the element type at run time only. A template, so that who never reduces compiles none of it.
using ReduceFunction = void (*)(void* out, const void* const* terms, int count, std::int64_t n, ReduceOp op,
                                bool stream);
template <class Type>
ReduceFunction reduce_function(Type dtype) {
  return visit_dtype(dtype, []<class T>(T) -> ReduceFunction {
    return [](void* out, const void* const* terms, int count, std::int64_t n, ReduceOp op, bool stream) {
      const T* typed[max_ranks_reduced];  // copied, not read as pointers of another type
      for (int t = 0; t < count; ++t) typed[t] = static_cast<const T*>(terms[t]);
      reduce_terms(static_cast<T*>(out), typed, count, n, op, stream);
    };
  });
}

}  // namespace detail
}  // namespace shardwise
