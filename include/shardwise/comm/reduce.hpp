// reduce_terms: the reduction of several buffers, element by element, in the order of the terms, so that every
// backend that reduces by itself gives the same bits. Does not communicate. Layer: comm.
#pragma once

#include <cstdint>
#include <cstring>
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
struct ReduceArithmetic<ComplexPair<T>> {
  using Value = ComplexPair<T>;
  static Value load(const Value& x) { return x; }
  static Value store(const Value& x) { return x; }
  static Value add(Value a, Value b) { return a + b; }
  static Value multiply(Value a, Value b) { return a * b; }
  static Value divide(Value a, int count) { return a / Value(count); }
};

// Terms are reduced in blocks of this many elements: the loops have a count that the compiler knows and pointers that
// cannot overlap, without which g++ at -O2 does not vectorise them. It also lets the output be one of the terms.
inline constexpr std::int64_t reduce_block = 128;

// acc = acc op term for a whole block. The only loops of most reductions, shared by all types that are kept alike.
template <class Value>
[[gnu::noinline]] void combine_block(Value* __restrict acc, const Value* __restrict term, ReduceOp op) {
  using A = ReduceArithmetic<Value>;
  if (op == ReduceOp::product) {
    for (std::int64_t i = 0; i < reduce_block; ++i) acc[i] = A::multiply(acc[i], term[i]);
  } else if (op == ReduceOp::sum || op == ReduceOp::avg) {
    for (std::int64_t i = 0; i < reduce_block; ++i) acc[i] = A::add(acc[i], term[i]);
  } else if constexpr (requires(Value v) { v < v; }) {
    if (op == ReduceOp::max)
      for (std::int64_t i = 0; i < reduce_block; ++i) acc[i] = acc[i] < term[i] ? term[i] : acc[i];
    else
      for (std::int64_t i = 0; i < reduce_block; ++i) acc[i] = term[i] < acc[i] ? term[i] : acc[i];
  }
}

// What is reduced often: sums of float and double. Only these are unrolled over the terms: for all types and
// operations that was a third of a small program's code and compile time.
template <class T>
struct UnrolledSum {
  // acc[i] = acc[i] + t[0][i] + ... ; the first pass starts from t[0].
  template <bool first, int K>
  static void pass(T* __restrict acc, const void* const* terms, std::int64_t at) {
    const T* t[K];
    for (int k = 0; k < K; ++k) t[k] = static_cast<const T*>(terms[k]) + at;
    for (std::int64_t i = 0; i < reduce_block; ++i) {
      T v = first ? t[0][i] : acc[i] + t[0][i];
      for (int k = 1; k < K; ++k) v += t[k][i];
      acc[i] = v;
    }
  }

  static void block(T* acc, const void* const* terms, int count, std::int64_t at) {
    int done = 1;
    switch (count) {
      case 1: pass<true, 1>(acc, terms, at); break;
      case 2: pass<true, 2>(acc, terms, at), done = 2; break;
      case 3: pass<true, 3>(acc, terms, at), done = 3; break;
      case 4:
      case 5:
      case 6:
      case 7: pass<true, 4>(acc, terms, at), done = 4; break;
      default: pass<true, 8>(acc, terms, at), done = 8; break;
    }
    for (; count - done >= 8; done += 8) pass<false, 8>(acc, terms + done, at);
    for (; done < count; ++done) pass<false, 1>(acc, terms + done, at);
  }
};

// `terms` point to elements of T. 16-bit types and bytes are widened block by block.
template <class T>
void reduce_erased(void* out, const void* const* terms, int count, std::int64_t n, ReduceOp op, bool stream) {
  using A = ReduceArithmetic<T>;
  using Value = typename A::Value;
  constexpr bool widened = !std::is_same_v<T, Value>;
  Value acc[reduce_block] = {};
  Value copy[reduce_block] = {};
  for (std::int64_t at = 0; at < n; at += reduce_block) {
    const std::int64_t m = n - at < reduce_block ? n - at : reduce_block;
    const auto load = [&](Value* to, int term) {
      const T* from = static_cast<const T*>(terms[term]) + at;
      for (std::int64_t i = 0; i < m; ++i) to[i] = A::load(from[i]);
    };
    bool done = false;
    if constexpr (std::is_floating_point_v<T>)
      if ((op == ReduceOp::sum || op == ReduceOp::avg) && m == reduce_block) {
        UnrolledSum<T>::block(acc, terms, count, at);
        done = true;
      }
    if (!done) {
      load(acc, 0);
      for (int t = 1; t < count; ++t) {
        const Value* term = copy;
        if constexpr (!widened)
          if (m == reduce_block) term = static_cast<const Value*>(terms[t]) + at;
        if (term == copy) load(copy, t);
        combine_block(acc, term, op);
      }
    }
    if (op == ReduceOp::avg)
      for (std::int64_t i = 0; i < reduce_block; ++i) acc[i] = A::divide(acc[i], count);
    T* to = static_cast<T*>(out) + at;
    if constexpr (widened) {
      for (std::int64_t i = 0; i < m; ++i) to[i] = A::store(acc[i]);
    } else {
      const auto bytes = static_cast<std::size_t>(m) * sizeof(T);
      stream ? stream_copy(to, acc, bytes) : static_cast<void>(std::memcpy(static_cast<void*>(to), acc, bytes));
    }
  }
  if (stream) stream_fence();
}

// At most so many terms meet in one reduction.
inline constexpr int max_ranks_reduced = 1024;

// The same for code that knows the element type at run time only. A template, so that who never reduces compiles none of it.
using ReduceFunction = void (*)(void* out, const void* const* terms, int count, std::int64_t n, ReduceOp op,
                                bool stream);
template <class Type>
ReduceFunction reduce_function(Type dtype) {
  return visit_dtype(dtype, []<class T>(T) -> ReduceFunction { return &reduce_erased<T>; });
}

// std::complex has the bytes of ComplexPair and the arithmetic that reductions need is the pair's.
template <class T>
struct Reduced {
  using type = T;
};
template <StdComplex T>
struct Reduced<T> {
  using type = ComplexPair<typename T::value_type>;
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
void reduce_terms(T* out, const T* const* terms, int count, std::int64_t n, ReduceOp op) {
  if (!reducible<T>(op)) detail::fail("shardwise::reduce_terms: complex numbers have no maximum and no minimum");
  const void* erased[detail::max_ranks_reduced];
  for (int t = 0; t < count; ++t) erased[t] = terms[t];
  detail::reduce_erased<typename detail::Reduced<T>::type>(
      out, erased, count, n, op, static_cast<std::size_t>(n) * sizeof(T) >= detail::streamed_bytes);
}

}  // namespace shardwise
