// gemm: C (+)= op(A) op(B) on dense row-major matrices of any element type. float and double go to Eigen, or to
// a BLAS where the build found one (SHARDWISE_HAS_BLAS), 16-bit types are computed as float, integers and complex
// numbers run in a tiled kernel of our own. Layer: ops.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <shardwise/base/dtype.hpp>

#if SHARDWISE_HAS_BLAS
namespace shardwise::detail::kernels {
// Named by their symbols: a declaration of sgemm_ itself would clash with a BLAS header that the user includes.
extern "C" {
void shardwise_blas_sgemm(const char*, const char*, const int*, const int*, const int*, const float*, const float*,
                          const int*, const float*, const int*, const float*, float*, const int*) __asm__("sgemm_");
void shardwise_blas_dgemm(const char*, const char*, const int*, const int*, const int*, const double*, const double*,
                          const int*, const double*, const int*, const double*, double*, const int*) __asm__("dgemm_");
}
}  // namespace shardwise::detail::kernels
#else
#include <Eigen/Core>
#endif

namespace shardwise::detail::kernels {

// W columns of a row of C as a value: SIMD registers for the types that have them, plain loops otherwise.
// 16-byte vectors: g++ 12 lowers wider ones through memory where the target has no AVX.
template <class T>
struct GemmLanes {
  static constexpr bool simd = std::is_arithmetic_v<T> && sizeof(T) >= 4;
  static constexpr int width = simd ? 32 / static_cast<int>(sizeof(T)) : 4;
};

template <class T, bool Simd = GemmLanes<T>::simd>
struct GemmRow {
  typedef T Vector __attribute__((vector_size(16)));
  Vector lo, hi;

  void clear() { lo = hi = Vector{}; }
  void multiply_add(T a, const T* b) {
    Vector x, y;
    std::memcpy(&x, b, 16);
    std::memcpy(&y, b + GemmLanes<T>::width / 2, 16);
    lo += a * x;
    hi += a * y;
  }
  void store(T* out) const {
    std::memcpy(out, &lo, 16);
    std::memcpy(out + GemmLanes<T>::width / 2, &hi, 16);
  }
};

template <class T>
struct GemmRow<T, false> {
  T value[GemmLanes<T>::width];

  void clear() {
    for (T& v : value) v = T(0);
  }
  void multiply_add(T a, const T* b) {
    for (int j = 0; j < GemmLanes<T>::width; ++j) value[j] = static_cast<T>(value[j] + a * b[j]);
  }
  void store(T* out) const {
    for (int j = 0; j < GemmLanes<T>::width; ++j) out[j] = value[j];
  }
};

// Rows x width elements of C. A is read through strides, B through a panel of `width` columns.
template <int Rows, class T>
void gemm_tile(std::int64_t columns, std::int64_t k, const T* a, std::int64_t row_stride, std::int64_t k_stride,
               const T* b, std::int64_t b_stride, T* c, std::int64_t c_stride, bool accumulate) {
  constexpr int width = GemmLanes<T>::width;
  GemmRow<T> sum[Rows];
  for (int i = 0; i < Rows; ++i) sum[i].clear();
  for (std::int64_t p = 0; p < k; ++p, a += k_stride, b += b_stride)
    for (int i = 0; i < Rows; ++i) sum[i].multiply_add(a[i * row_stride], b);
  if (columns == width && !accumulate) {
    for (int i = 0; i < Rows; ++i) sum[i].store(c + i * c_stride);
    return;
  }
  T row[width];
  for (int i = 0; i < Rows; ++i, c += c_stride) {
    sum[i].store(row);
    for (std::int64_t j = 0; j < columns; ++j) c[j] = accumulate ? static_cast<T>(c[j] + row[j]) : row[j];
  }
}

// Each element is summed over k in ascending order, in runs of 128 that do not depend on m and n.
template <class T>
void gemm_tiled(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b,
                T* c, bool accumulate) {
  constexpr int width = GemmLanes<T>::width;
  constexpr std::int64_t run = 128;
  T panel[run * width];
  const std::int64_t row_stride = trans_a ? 1 : k;
  const std::int64_t k_stride = trans_a ? m : 1;
  for (std::int64_t p = 0; p < k; p += run) {
    const std::int64_t depth = k - p < run ? k - p : run;
    const bool add = accumulate || p > 0;
    for (std::int64_t j = 0; j < n; j += width) {
      const std::int64_t columns = n - j < width ? n - j : width;
      const T* source = b + (trans_b ? j * k + p : p * n + j);
      std::int64_t stride = n;
      if (trans_b || columns < width) {  // a full panel of an untransposed B is read where it is
        if (trans_b) {
          for (std::int64_t s = 0; s < columns; ++s)
            for (std::int64_t q = 0; q < depth; ++q) panel[q * width + s] = source[s * k + q];
        } else {
          for (std::int64_t q = 0; q < depth; ++q)
            for (std::int64_t s = 0; s < columns; ++s) panel[q * width + s] = source[q * n + s];
        }
        if (columns < width)
          for (std::int64_t q = 0; q < depth; ++q)
            for (std::int64_t s = columns; s < width; ++s) panel[q * width + s] = T(0);
        source = panel;
        stride = width;
      }
      const T* left = a + p * k_stride;
      std::int64_t i = 0;
      for (; i + 4 <= m; i += 4)
        gemm_tile<4>(columns, depth, left + i * row_stride, row_stride, k_stride, source, stride, c + i * n + j, n,
                     add);
      for (; i < m; ++i)
        gemm_tile<1>(columns, depth, left + i * row_stride, row_stride, k_stride, source, stride, c + i * n + j, n,
                     add);
    }
  }
}

#if SHARDWISE_HAS_BLAS

template <class T>
void gemm_library(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b,
                  T* c, bool accumulate) {
  constexpr std::int64_t limit = 0x7fffffff;
  if (m > limit || n > limit || k > limit)  // more than its int can say
    return gemm_tiled<T>(trans_a, trans_b, m, n, k, a, b, c, accumulate);
  // A BLAS is column-major: the transposed product C' = op(B)' op(A)'.
  const char first = trans_b ? 'T' : 'N';
  const char second = trans_a ? 'T' : 'N';
  const int rows = static_cast<int>(n), columns = static_cast<int>(m), depth = static_cast<int>(k);
  const int ldb = trans_b ? depth : rows, lda = trans_a ? columns : depth;
  const T one = 1, beta = accumulate ? T(1) : T(0);
  if constexpr (std::is_same_v<T, float>)
    shardwise_blas_sgemm(&first, &second, &rows, &columns, &depth, &one, b, &ldb, a, &lda, &beta, c, &rows);
  else
    shardwise_blas_dgemm(&first, &second, &rows, &columns, &depth, &one, b, &ldb, a, &lda, &beta, c, &rows);
}

#else

// Eigen's blocked product is called below its expressions: `c.noalias() += a * b` over maps also instantiates
// matrix-vector, inner and lazy products (g++ 12 -O2, float and double, four transposes: 8.0 s above the include of
// <Eigen/Core>, with run-time strides 3.6 s; this: 1.1 s). Called so it needs no other kernel for small sizes: 12 x 16 x
// 16 takes 0.3 us, 4 x 4 x 4 as long as a plain loop. The signature is that of Eigen 3.4 and later.
template <class T, int LeftOrder, int RightOrder>
void gemm_eigen(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b, T* c) {
  using Eigen::Index;
  Eigen::internal::gemm_blocking_space<Eigen::RowMajor, T, T, Eigen::Dynamic, Eigen::Dynamic, Eigen::Dynamic> blocking(
      m, n, k, 1, true);
  Eigen::internal::general_matrix_matrix_product<Index, T, LeftOrder, false, T, RightOrder, false, Eigen::RowMajor,
                                                 1>::run(m, n, k, a, LeftOrder == Eigen::RowMajor ? k : m, b,
                                                         RightOrder == Eigen::RowMajor ? n : k, c, 1, n, T(1), blocking,
                                                         nullptr);
}

template <class T>
void gemm_library(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b,
                  T* c, bool accumulate) {
  if (trans_a && trans_b) {  // no operator asks for it: not worth a fourth kernel
    std::vector<T> rows(static_cast<std::size_t>(m * k));
    for (std::int64_t p = 0; p < k; ++p)
      for (std::int64_t i = 0; i < m; ++i) rows[static_cast<std::size_t>(i * k + p)] = a[p * m + i];
    return gemm_library(false, true, m, n, k, rows.data(), b, c, accumulate);
  }
  if (!accumulate) std::memset(c, 0, static_cast<std::size_t>(m * n) * sizeof(T));
  if (trans_a)
    gemm_eigen<T, Eigen::ColMajor, Eigen::RowMajor>(m, n, k, a, b, c);
  else
    trans_b ? gemm_eigen<T, Eigen::RowMajor, Eigen::ColMajor>(m, n, k, a, b, c)
            : gemm_eigen<T, Eigen::RowMajor, Eigen::RowMajor>(m, n, k, a, b, c);
}

#endif

/// C (+)= op(A) op(B), all row-major:
///   op(A): (m, k), stored (k, m) where trans_a;  op(B): (k, n), stored (n, k) where trans_b;  C: (m, n)
template <class T>
void gemm(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b, T* c,
          bool accumulate) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0) {
    if (!accumulate)
      for (std::int64_t i = 0; i < m * n; ++i) c[i] = T(0);
    return;
  }
  if constexpr (!std::is_same_v<T, Accumulator<T>>) {
    // Converted once, so that 16-bit products run at the speed of float and round once.
    using A = Accumulator<T>;
    std::vector<A> left(a, a + m * k), right(b, b + k * n), sum(static_cast<std::size_t>(m * n));
    if (accumulate)
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<A>(c[i]);
    gemm<A>(trans_a, trans_b, m, n, k, left.data(), right.data(), sum.data(), accumulate);
    for (std::size_t i = 0; i < sum.size(); ++i) c[i] = static_cast<T>(sum[i]);
  } else if constexpr (StdComplex<T>) {
    // std::complex multiplies through a library call that mends infinities, ten times slower.
    using P = ComplexPair<typename T::value_type>;
    gemm_tiled<P>(trans_a, trans_b, m, n, k, reinterpret_cast<const P*>(a), reinterpret_cast<const P*>(b),
                  reinterpret_cast<P*>(c), accumulate);
  } else if constexpr (std::is_floating_point_v<T>) {
    gemm_library<T>(trans_a, trans_b, m, n, k, a, b, c, accumulate);
  } else {
    gemm_tiled<T>(trans_a, trans_b, m, n, k, a, b, c, accumulate);
  }
}

}  // namespace shardwise::detail::kernels
