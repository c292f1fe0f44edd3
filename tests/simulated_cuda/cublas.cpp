// The functions of cuBLAS that the library calls, for programs that are linked with this in place of it: products as plain loops,
// done when the stream of the handle comes to them. Adds up in double, from the last term to the first: the order is not to be relied on.
#include <cublas_v2.h>

#include <complex>
#include <cstring>

#include <shardwise/base/dtype.hpp>

#include "simulated_cuda/state.hpp"

using namespace simulated_cuda;

namespace {

struct Handle {
  int device;
  cudaStream_t stream = nullptr;
};
Handle* handle_of(cublasHandle_t handle) { return reinterpret_cast<Handle*>(handle); }

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
};

// To the nearest of 10 bits of mantissa, as tensor cores read a float.
float rounded_to_tf32(float x) {
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
void run(const Product& p) {
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
        if constexpr (shardwise::is_complex<T>)
          to = T(sum);
        else
          to = static_cast<T>(static_cast<shardwise::Accumulator<T>>(sum));
      }
  }
}

// The bytes that a batch of matrices covers lie in memory of the device.
bool covered(const void* first, std::int64_t rows, std::int64_t columns, std::int64_t leading, long long stride,
             std::int64_t batch, std::size_t element, int device) {
  const std::int64_t last = (batch - 1) * stride + (columns - 1) * leading + rows;
  return Machine::get().device_of(first) == device &&
         Machine::get().memory(device).holds(first, static_cast<std::size_t>(last) * element);
}

template <class T>
cublasStatus_t put(const Handle& handle, const Product& p, bool types_fit) {
  const bool ta = p.transa != CUBLAS_OP_N, tb = p.transb != CUBLAS_OP_N;
  const std::int64_t rows_a = ta ? p.k : p.m, rows_b = tb ? p.n : p.k;
  if (!types_fit) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (p.m <= 0 || p.n <= 0 || p.k <= 0 || p.batch <= 0 || p.lda < rows_a || p.ldb < rows_b || p.ldc < p.m)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!covered(p.a, rows_a, ta ? p.m : p.k, p.lda, p.stridea, p.batch, sizeof(T), handle.device) ||
      !covered(p.b, rows_b, tb ? p.k : p.n, p.ldb, p.strideb, p.batch, sizeof(T), handle.device) ||
      !covered(p.c, p.m, p.n, p.ldc, p.stridec, p.batch, sizeof(T), handle.device))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  stream_of(handle.stream)->put([p] { run<T>(p); });
  return CUBLAS_STATUS_SUCCESS;
}

bool is_one(const void* factor, bool wide, bool& zero) {
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

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (ordered_failure("cublasCreate") != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cublasHandle_t>(new Handle{current_device()});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (stream == nullptr || stream_of(stream)->device() != handle_of(handle)->device) return CUBLAS_STATUS_INVALID_VALUE;
  handle_of(handle)->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "a status without a name in the simulation";
  }
}
cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                             int64_t m, int64_t n, int64_t k, const void* alpha, const void* a,
                                             cudaDataType atype, int64_t lda, long long stridea, const void* b,
                                             cudaDataType btype, int64_t ldb, long long strideb, const void* beta,
                                             void* c, cudaDataType ctype, int64_t ldc, long long stridec, int64_t batch,
                                             cublasComputeType_t compute, cublasGemmAlgo_t) {
  if (ordered_failure("cublasGemmStridedBatchedEx_64") != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (handle_of(handle)->device != current_device()) return CUBLAS_STATUS_EXECUTION_FAILED;
  const bool wide = compute == CUBLAS_COMPUTE_64F, tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  bool zero = false;
  if (!is_one(alpha, wide, zero)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool accumulate = is_one(beta, wide, zero);
  if ((!accumulate && !zero) || atype != btype || atype != ctype) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Product p{transa, transb, m, n, k, a, lda, stridea, b, ldb, strideb, c, ldc, stridec, batch, accumulate, tf32};
  const bool narrow = compute == CUBLAS_COMPUTE_32F;
  switch (atype) {
    case CUDA_R_32F: return put<float>(*handle_of(handle), p, narrow || tf32);
    case CUDA_R_64F: return put<double>(*handle_of(handle), p, wide);
    case CUDA_R_16BF: return put<shardwise::bfloat16>(*handle_of(handle), p, narrow);
    case CUDA_R_16F: return put<shardwise::half>(*handle_of(handle), p, narrow);
    case CUDA_C_32F: return put<std::complex<float>>(*handle_of(handle), p, narrow);
    case CUDA_C_64F: return put<std::complex<double>>(*handle_of(handle), p, wide);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

}  // extern "C"
