// reduce_terms: the reduction of several buffers, element by element, in the order of the terms, so that every
// backend that reduces by itself gives the same bits. Does not communicate. Layer: comm.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/reduce_arithmetic.hpp>
#include <shardwise/comm/stream.hpp>

namespace shardwise {

namespace detail {

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

  static void block(void* to, const void* const* terms, int count, std::int64_t at) {
    auto* acc = static_cast<T*>(to);
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

// What the one loop over blocks needs to know of an element type.
struct ReduceKernels {
  std::size_t element;  // bytes
  bool widened;         // kept in another type than it is stored in
  void (*load)(void* acc, const void* from, std::int64_t n);
  void (*store)(void* to, const void* acc, std::int64_t n);
  void (*combine)(void* acc, const void* term, ReduceOp op);  // a whole block
  void (*divide)(void* acc, int count);                       // a whole block
  void (*sum)(void* acc, const void* const* terms, int count, std::int64_t at);  // a whole block, or null
};

template <class T>
struct ReduceKernelsOf {
  using A = ReduceArithmetic<T>;
  using Value = typename A::Value;
  static void load(void* acc, const void* from, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) static_cast<Value*>(acc)[i] = A::load(static_cast<const T*>(from)[i]);
  }
  static void store(void* to, const void* acc, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) static_cast<T*>(to)[i] = A::store(static_cast<const Value*>(acc)[i]);
  }
};

template <class Value>
void combine_erased(void* acc, const void* term, ReduceOp op) {
  combine_block(static_cast<Value*>(acc), static_cast<const Value*>(term), op);
}
template <class Value>
void divide_erased(void* acc, int count) {
  auto* value = static_cast<Value*>(acc);
  for (std::int64_t i = 0; i < reduce_block; ++i) value[i] = ReduceArithmetic<Value>::divide(value[i], count);
}

template <class T>
inline constexpr ReduceKernels reduce_kernels = [] {
  using Value = typename ReduceArithmetic<T>::Value;
  ReduceKernels k{sizeof(T), !std::is_same_v<T, Value>, nullptr, nullptr, &combine_erased<Value>, &divide_erased<Value>,
                  nullptr};
  if constexpr (!std::is_same_v<T, Value>) {
    k.load = &ReduceKernelsOf<T>::load;
    k.store = &ReduceKernelsOf<T>::store;
  }
  if constexpr (std::is_floating_point_v<T>) k.sum = &UnrolledSum<T>::block;
  return k;
}();

// 16-bit types and bytes are widened block by block.
inline void reduce_blocks(const ReduceKernels& kernels, void* out, const void* const* terms, int count, std::int64_t n,
                          ReduceOp op, bool stream) {
  constexpr std::size_t widest = 16;
  alignas(64) std::byte acc[reduce_block * widest] = {};
  alignas(64) std::byte copy[reduce_block * widest] = {};
  const bool sums = kernels.sum != nullptr && (op == ReduceOp::sum || op == ReduceOp::avg);
  for (std::int64_t at = 0; at < n; at += reduce_block) {
    const std::int64_t m = n - at < reduce_block ? n - at : reduce_block;
    const std::size_t offset = static_cast<std::size_t>(at) * kernels.element;
    const std::size_t bytes = static_cast<std::size_t>(m) * kernels.element;
    const auto load = [&](void* to, int t) {
      const auto* from = static_cast<const std::byte*>(terms[t]) + offset;
      kernels.widened ? kernels.load(to, from, m) : static_cast<void>(std::memcpy(to, from, bytes));
    };
    if (sums && m == reduce_block) {
      kernels.sum(acc, terms, count, at);
    } else {
      load(acc, 0);
      for (int t = 1; t < count; ++t) {
        const void* term = static_cast<const std::byte*>(terms[t]) + offset;
        if (kernels.widened || m < reduce_block) {
          load(copy, t);
          term = copy;
        }
        kernels.combine(acc, term, op);
      }
    }
    if (op == ReduceOp::avg) kernels.divide(acc, count);
    auto* to = static_cast<std::byte*>(out) + offset;
    if (kernels.widened)
      kernels.store(to, acc, m);
    else
      stream ? stream_copy(to, acc, bytes) : static_cast<void>(std::memcpy(to, acc, bytes));
  }
  if (stream) stream_fence();
}

// data[i] /= by, as averages are divided.
template <class = void>
void divide_blocks(const ReduceKernels& kernels, void* data, std::int64_t n, int by) {
  constexpr std::size_t widest = 16;
  alignas(64) std::byte acc[reduce_block * widest] = {};
  for (std::int64_t at = 0; at < n; at += reduce_block) {
    const std::int64_t m = n - at < reduce_block ? n - at : reduce_block;
    auto* block = static_cast<std::byte*>(data) + static_cast<std::size_t>(at) * kernels.element;
    const std::size_t bytes = static_cast<std::size_t>(m) * kernels.element;
    kernels.widened ? kernels.load(acc, block, m) : static_cast<void>(std::memcpy(acc, block, bytes));
    kernels.divide(acc, by);
    kernels.widened ? kernels.store(block, acc, m) : static_cast<void>(std::memcpy(block, acc, bytes));
  }
}

// At most so many terms meet in one reduction.
inline constexpr int max_ranks_reduced = 1024;

// The same for code that knows the element type at run time only. A template, so that who never reduces compiles none of it.
template <class Type>
const ReduceKernels& reduce_kernels_of(Type dtype) {
  return visit_dtype(dtype, []<class T>(T) -> const ReduceKernels& { return reduce_kernels<T>; });
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
/// accumulated in float; an average divides at the end. `out` may be one of the terms. Throws `Error` for a count outside 1 to
/// 1024, and for the maximum or minimum of complex numbers.
template <Element T>
void reduce_terms(T* out, const T* const* terms, int count, std::int64_t n, ReduceOp op) {
  if (!reducible<T>(op)) detail::fail("shardwise::reduce_terms: complex numbers have no maximum and no minimum");
  SHARDWISE_REQUIRE(count >= 1 && count <= detail::max_ranks_reduced,
                    detail::text("shardwise::reduce_terms: ", count, " terms; 1 to ", detail::max_ranks_reduced,
                                 " meet in one call"));
  const void* erased[detail::max_ranks_reduced];
  for (int t = 0; t < count; ++t) erased[t] = terms[t];
  detail::reduce_blocks(detail::reduce_kernels<typename detail::Reduced<T>::type>, out, erased, count, n, op,
                        static_cast<std::size_t>(n) * sizeof(T) >= detail::streamed_bytes);
}

}  // namespace shardwise
