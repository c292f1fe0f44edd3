// The functions of cuBLAS that the library calls, for programs that are linked with this in place of it.
#include <cublas_v2.h>

#include "simulated_cuda/products.hpp"

using namespace simulated_cuda;

namespace {

ProductHandle* handle_of(cublasHandle_t handle) { return reinterpret_cast<ProductHandle*>(handle); }

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (ordered_failure("cublasCreate") != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cublasHandle_t>(new ProductHandle{current_device()});
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
  return put_product(handle_of(handle)->device, handle_of(handle)->stream, atype, compute, p);
}

}  // extern "C"
