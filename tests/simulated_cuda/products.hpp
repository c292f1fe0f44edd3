// Products of matrices as the simulated cuBLAS and cuBLASLt do them: plain loops, when the stream comes to them. Adds up in double, from the
// last term to the first: the order is not to be relied on.
#pragma once

#include <complex>
#include <cstring>

#include <cublas_v2.h>

#include <shardwise/base/dtype.hpp>

#include "simulated_cuda/state.hpp"

namespace simulated_cuda {

// Stands for a cublasHandle_t and, as there, for a cublasLtHandle_t.
struct ProductHandle {
  int device;
  cudaStream_t stream = nullptr;
};

struct Product {
  cublasOperation_t transa, transb;
  std::int64_t m, n, k;
  const void* a;
  std::int64_t lda;
  long long stridea;
  const void* b;
  std::int64_t ldb;
  long long strideb;
  void* c;
  std::int64_t ldc;
  long long stridec;
  std::int64_t batch;
  bool accumulate;
  bool tf32;
  const void* bias = nullptr;  // (m), added to each column
};

// To the nearest of 10 bits of mantissa, as tensor cores read a float.
inline float rounded_to_tf32(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

template <class T>
auto operand(T x, bool tf32) {
  if constexpr (shardwise::is_complex<T>)
    return std::complex<double>(x);
  else if constexpr (std::is_same_v<T, float>)
    return static_cast<double>(tf32 ? rounded_to_tf32(x) : x);
  else
    return static_cast<double>(static_cast<shardwise::Accumulator<T>>(x));
}

template <class T>
void run_product(const Product& p) {
  for (std::int64_t i = 0; i < p.batch; ++i) {
    const T* const a = static_cast<const T*>(p.a) + i * p.stridea;
    const T* const b = static_cast<const T*>(p.b) + i * p.strideb;
    T* const c = static_cast<T*>(p.c) + i * p.stridec;
    for (std::int64_t column = 0; column < p.n; ++column)
      for (std::int64_t row = 0; row < p.m; ++row) {
        T& to = c[row + column * p.ldc];
        decltype(operand(T(), false)) sum(0);
        for (std::int64_t q = p.k; q-- > 0;) {
          const T left = p.transa == CUBLAS_OP_N ? a[row + q * p.lda] : a[q + row * p.lda];
          const T right = p.transb == CUBLAS_OP_N ? b[q + column * p.ldb] : b[column + q * p.ldb];
          sum += operand(left, p.tf32) * operand(right, p.tf32);
        }
        if (p.accumulate) sum += operand(to, false);
        if (p.bias != nullptr) sum += operand(static_cast<const T*>(p.bias)[row], false);
        if constexpr (shardwise::is_complex<T>)
          to = T(sum);
        else
          to = static_cast<T>(static_cast<shardwise::Accumulator<T>>(sum));
      }
  }
}

// The bytes that a batch of matrices covers lie in memory of the device.
inline bool covered(const void* first, std::int64_t rows, std::int64_t columns, std::int64_t leading, long long stride,
                    std::int64_t batch, std::size_t element, int device) {
  const std::int64_t last = (batch - 1) * stride + (columns - 1) * leading + rows;
  return Machine::get().device_of(first) == device &&
         Machine::get().memory(device).holds(first, static_cast<std::size_t>(last) * element);
}

template <class T>
cublasStatus_t put_product(int device, cudaStream_t stream, const Product& p, bool types_fit) {
  const bool ta = p.transa != CUBLAS_OP_N, tb = p.transb != CUBLAS_OP_N;
  const std::int64_t rows_a = ta ? p.k : p.m, rows_b = tb ? p.n : p.k;
  if (!types_fit) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (p.m <= 0 || p.n <= 0 || p.k <= 0 || p.batch <= 0 || p.lda < rows_a || p.ldb < rows_b || p.ldc < p.m)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!covered(p.a, rows_a, ta ? p.m : p.k, p.lda, p.stridea, p.batch, sizeof(T), device) ||
      !covered(p.b, rows_b, tb ? p.k : p.n, p.ldb, p.strideb, p.batch, sizeof(T), device) ||
      !covered(p.c, p.m, p.n, p.ldc, p.stridec, p.batch, sizeof(T), device))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  if (p.bias != nullptr && !covered(p.bias, p.m, 1, p.m, 0, 1, sizeof(T), device))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  stream_of(stream)->put([p] { run_product<T>(p); });
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t put_product(int device, cudaStream_t stream, cudaDataType_t type, cublasComputeType_t compute,
                                  const Product& p) {
  const bool wide = compute == CUBLAS_COMPUTE_64F, narrow = compute == CUBLAS_COMPUTE_32F;
  switch (type) {
    case CUDA_R_32F: return put_product<float>(device, stream, p, narrow || p.tf32);
    case CUDA_R_64F: return put_product<double>(device, stream, p, wide);
    case CUDA_R_16BF: return put_product<shardwise::bfloat16>(device, stream, p, narrow);
    case CUDA_R_16F: return put_product<shardwise::half>(device, stream, p, narrow);
    case CUDA_C_32F: return put_product<std::complex<float>>(device, stream, p, narrow);
    case CUDA_C_64F: return put_product<std::complex<double>>(device, stream, p, wide);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

inline bool is_one(const void* factor, bool wide, bool& zero) {
  double value = 0;
  if (wide) {
    std::memcpy(&value, factor, sizeof value);
  } else {
    float narrow = 0;
    std::memcpy(&narrow, factor, sizeof narrow);
    value = static_cast<double>(narrow);
  }
  zero = value == 0;
  return value == 1;
}

}  // namespace simulated_cuda
