// The functions of cuBLASLt that the library calls, for programs that are linked with this in place of it: products with a bias. What a
// search has found is good for the addresses that it was told of, and needs its workspace, which is written to.
#include <cublasLt.h>

#include "simulated_cuda/products.hpp"

using namespace simulated_cuda;

namespace {

struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};
struct Layout {
  cudaDataType_t type;
  std::uint64_t rows, columns;
  std::int64_t leading;
};
// Of a search, and in the algorithm that it gives.
struct Wanted {
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint64_t workspace = 0;
};
static_assert(sizeof(Wanted) <= sizeof(cublasLtMatmulAlgo_t));

constexpr std::uint64_t workspace_bytes = 1024;

template <class Object, class Handle>
Object* object_of(Handle handle) {
  return reinterpret_cast<Object*>(handle);
}
template <class Value>
cublasStatus_t take(Value& into, const void* value, std::size_t bytes) {
  if (bytes != sizeof into) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&into, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
bool aligned(const void* p, std::uint32_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }

}  // namespace

extern "C" {

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t scale) {
  *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{.compute = compute, .scale = scale});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete object_of<Description>(description);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  Description& d = *object_of<Description>(handle);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(d.transa, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(d.transb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(d.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(d.bias, value, bytes);
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  if (rows == 0 || columns == 0 || leading < static_cast<std::int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete object_of<Layout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Wanted);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete object_of<Wanted>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
  Wanted& wanted = *object_of<Wanted>(handle);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(wanted.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(wanted.reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return take(wanted.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return take(wanted.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return take(wanted.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(wanted.alignment[3], value, bytes);
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  *found = 0;
  if (ordered_failure("cublasLtMatmulAlgoGetHeuristic") != cudaSuccess) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Wanted wanted = *object_of<Wanted>(preference);
  if (asked < 1) return CUBLAS_STATUS_INVALID_VALUE;
  results[0] = {};
  std::memcpy(&results[0].algo, &wanted, sizeof wanted);
  results[0].workspaceSize = workspace_bytes < wanted.workspace ? workspace_bytes : wanted.workspace;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t layout_a, const void* b,
                              cublasLtMatrixLayout_t layout_b, const void* beta, const void* c, cublasLtMatrixLayout_t,
                              void* d, cublasLtMatrixLayout_t layout_d, const cublasLtMatmulAlgo_t* algorithm,
                              void* workspace, std::size_t bytes, cudaStream_t stream) {
  const int device = reinterpret_cast<ProductHandle*>(handle)->device;
  const Description& what = *object_of<Description>(description);
  const Layout &left = *object_of<Layout>(layout_a), &right = *object_of<Layout>(layout_b),
               &out = *object_of<Layout>(layout_d);
  Wanted good_for;
  std::memcpy(static_cast<void*>(&good_for), algorithm, sizeof good_for);
  if (device != current_device() || stream == nullptr || stream_of(stream)->device() != device)
    return CUBLAS_STATUS_EXECUTION_FAILED;
  const void* const pointers[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (!aligned(pointers[i], good_for.alignment[i])) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool narrow = left.type == CUDA_R_16BF || left.type == CUDA_R_16F;
  if (narrow && (good_for.reductions & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE) != 0)
    return CUBLAS_STATUS_NOT_SUPPORTED;  // it would add up in 16 bits
  const std::uint64_t needs = workspace_bytes < good_for.workspace ? workspace_bytes : good_for.workspace;
  if (bytes < needs || !Machine::get().memory(device).holds(workspace, needs)) return CUBLAS_STATUS_INVALID_VALUE;
  if (what.epilogue != CUBLASLT_EPILOGUE_BIAS || !aligned(what.bias, 16) || left.type != right.type ||
      left.type != out.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool wide = what.compute == CUBLAS_COMPUTE_64F;
  if (what.scale != (wide ? CUDA_R_64F : CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
  bool zero = false;
  if (!is_one(alpha, wide, zero)) return CUBLAS_STATUS_NOT_SUPPORTED;
  static_cast<void>(is_one(beta, wide, zero));
  if (!zero) return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto m = static_cast<std::int64_t>(out.rows), n = static_cast<std::int64_t>(out.columns);
  const bool ta = what.transa != CUBLAS_OP_N, tb = what.transb != CUBLAS_OP_N;
  const auto k = static_cast<std::int64_t>(ta ? left.rows : left.columns);
  const auto fits = [](const Layout& x, bool turned, std::int64_t rows, std::int64_t columns) {
    return static_cast<std::int64_t>(turned ? x.columns : x.rows) == rows &&
           static_cast<std::int64_t>(turned ? x.rows : x.columns) == columns;
  };
  if (!fits(left, ta, m, k) || !fits(right, tb, k, n)) return CUBLAS_STATUS_INVALID_VALUE;
  const bool tf32 = what.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const Product product{what.transa,   what.transb, m, n,           k, a, left.leading, 0,    b,
                        right.leading, 0,           d, out.leading, 0, 1, false,        tf32, what.bias};
  stream_of(stream)->put([workspace, needs] { std::memset(workspace, 0x5a, needs); });
  return put_product(device, stream, out.type, what.compute, product);
}

}  // extern "C"
