// Matrix products: cuBLAS, and a kernel of our own for integers.
#include <algorithm>
#include <memory>

#include <cublasLt.h>
#include <cublas_v2.h>

#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/products.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>
#include <shardwise/cuda/tf32.hpp>

namespace shardwise::detail::device {

namespace {

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const char* const advice = status == CUBLAS_STATUS_NOT_INITIALIZED || status == CUBLAS_STATUS_ALLOC_FAILED
                                 ? "; the device may have no memory left for cuBLAS: cuda::empty_cache() gives back "
                                   "what nobody holds"
                                 : "";
  fail(text("shardwise: ", call, " failed: ", cublasGetStatusName(status), advice));
}

// A handle for the calling thread on each device, made when it is asked for. Lent, as streams are: at exit the library may be gone.
class Handles {
 public:
  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    for (std::size_t d = 0; d < held_.size(); ++d)
      if (held_[d] != nullptr) LentPool<cublasHandle_t>::global().give(static_cast<int>(d), held_[d]);
  }

  static cublasHandle_t on(const StreamView& stream) {
    thread_local Handles handles;
    cublasHandle_t& handle = handles.of(stream.device);
    check(cublasSetStream(handle, stream.handle), "cublasSetStream");
    return handle;
  }

 private:
  cublasHandle_t& of(int device) {
    const auto d = static_cast<std::size_t>(device);
    if (held_.size() <= d) held_.resize(d + 1);
    if (held_[d] == nullptr) held_[d] = LentPool<cublasHandle_t>::global().take(device);
    if (held_[d] == nullptr) {
      check(cublasCreate(&held_[d]), "cublasCreate");
      // 16-bit products are rounded once, at the end, as on the host.
      check(cublasSetMathMode(held_[d], static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                                  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
            "cublasSetMathMode");
    }
    return held_[d];
  }
  std::vector<cublasHandle_t> held_;
};

struct ProductType {
  cudaDataType_t element;
  cublasComputeType_t compute;
};
ProductType product_type(DType dtype) {
  switch (dtype) {
    case DType::float64: return {CUDA_R_64F, CUBLAS_COMPUTE_64F};
    case DType::bfloat16: return {CUDA_R_16BF, CUBLAS_COMPUTE_32F};
    case DType::float16: return {CUDA_R_16F, CUBLAS_COMPUTE_32F};
    case DType::complex64: return {CUDA_C_32F, CUBLAS_COMPUTE_32F};
    case DType::complex128: return {CUDA_C_64F, CUBLAS_COMPUTE_64F};
    default: return {CUDA_R_32F, cuda::tf32_allowed() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F};
  }
}

// Of memory that a thread of cuBLASLt may read at once: the largest power of two in the address, at most 256.
std::uint32_t alignment_of(const void* p) {
  const auto bits = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(p)) | 256u;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

// An object of cuBLASLt that ends with its scope.
template <class Object, cublasStatus_t (*Destroy)(Object)>
class Held {
 public:
  Held() = default;
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    if (object != nullptr) static_cast<void>(Destroy(object));
  }
  Object object = nullptr;
};
using Layout = Held<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Held<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

struct Description : Held<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> {
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) const {
    check(cublasLtMatmulDescSetAttribute(object, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
};

// As gemm_bias; false where cuBLASLt has no such product: nothing has happened then.
bool multiply_with_bias(DType dtype, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const void* a,
                        const void* b, const void* bias, void* c, const StreamView& stream) {
  constexpr std::int64_t most = INT32_MAX;  // beyond, cuBLASLt does not say what it takes
  constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what NVIDIA advises for Hopper
  if (m > most || n > most || k > most || alignment_of(bias) < 16) return false;
  const ProductType type = product_type(dtype);
  const cudaDataType_t scale = type.compute == CUBLAS_COMPUTE_64F ? CUDA_R_64F : CUDA_R_32F;
  const auto rows = [](std::int64_t count) { return static_cast<std::uint64_t>(count); };
  Description product;
  check(cublasLtMatmulDescCreate(&product.object, type.compute, scale), "cublasLtMatmulDescCreate");
  // Column-major: the transposed product C' = op(B)' A', whose rows are the columns of C: each takes a number of the bias.
  product.set(CUBLASLT_MATMUL_DESC_TRANSA, trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  Layout left, right, result;
  const char* const create = "cublasLtMatrixLayoutCreate";
  check(cublasLtMatrixLayoutCreate(&left.object, type.element, rows(trans_b ? k : n), rows(trans_b ? n : k),
                                   trans_b ? k : n),
        create);
  check(cublasLtMatrixLayoutCreate(&right.object, type.element, rows(k), rows(m), k), create);
  check(cublasLtMatrixLayoutCreate(&result.object, type.element, rows(n), rows(m), n), create);

  Preference preference;
  check(cublasLtMatmulPreferenceCreate(&preference.object), "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference.object, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  // Parts of a sum are not added up in 16 bits.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  // Else it takes all addresses for multiples of 256.
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(c));

  const auto handle = reinterpret_cast<cublasLtHandle_t>(Handles::on(stream));  // every handle of cuBLAS is one
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t searched =
      cublasLtMatmulAlgoGetHeuristic(handle, product.object, left.object, right.object, result.object, result.object,
                                     preference.object, 1, &found, &count);
  const bool none =
      searched == CUBLAS_STATUS_NOT_SUPPORTED || searched == CUBLAS_STATUS_INVALID_VALUE;  // versions differ
  if (none || (searched == CUBLAS_STATUS_SUCCESS && count == 0)) return false;
  check(searched, "cublasLtMatmulAlgoGetHeuristic");
  const Buffer workspace = found.workspaceSize > 0 ? device_buffer(found.workspaceSize, stream) : Buffer();
  const double one_double = 1, zero_double = 0;
  const float one = 1, zero = 0;
  const bool wide = scale == CUDA_R_64F;
  check(cublasLtMatmul(handle, product.object, wide ? static_cast<const void*>(&one_double) : &one, b, left.object, a,
                       right.object, wide ? static_cast<const void*>(&zero_double) : &zero, c, result.object, c,
                       result.object, &found.algo, workspace.data(), found.workspaceSize, stream.handle),
        "cublasLtMatmul");
  return true;
}

template <class T>
using TakesInteger = std::bool_constant<std::is_integral_v<T>>;
template <class T>
using TakesComplex = std::bool_constant<is_complex<T>>;

}  // namespace

void gemm(DType dtype, bool trans_a, bool trans_b, const GemmSizes& sizes, const void* a, const void* b, void* c,
          bool accumulate, const StreamView& stream) {
  const auto [batch, m, n, k] = sizes;
  if (batch <= 0 || m <= 0 || n <= 0) return;
  if (k <= 0) {
    const std::size_t bytes = static_cast<std::size_t>(batch * m * n) * size_of(dtype);
    if (!accumulate) zero_device_memory(c, bytes, stream);
    return;
  }
  if (dtype == DType::int32 || dtype == DType::int64 || dtype == DType::uint8)
    return visit_some<TakesInteger>("a product of integers", dtype, [&]<class T>(T) {
      launch(ProductBody<T>{static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(c), trans_a, trans_b,
                            accumulate, m, k, Divider(n), Divider(m * n)},
             batch * m * n, stream);
    });
  const cuda::DeviceScope scope(stream.device);
  const ProductType type = product_type(dtype);
  // Wide enough for each type of factors: a number and, for complex ones, the zero behind it.
  const float one[2] = {1, 0}, zero[2] = {0, 0};
  const double one_double[2] = {1, 0}, zero_double[2] = {0, 0};
  const bool wide = type.compute == CUBLAS_COMPUTE_64F;
  const void* const alpha = wide ? static_cast<const void*>(one_double) : one;
  const void* const none = wide ? static_cast<const void*>(zero_double) : zero;
  // cuBLAS is column-major: the transposed product C' = op(B)' op(A)'. Its functions with 64-bit sizes have no limit that we could meet.
  check(cublasGemmStridedBatchedEx_64(
            Handles::on(stream), trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k,
            alpha, b, type.element, trans_b ? k : n, k * n, a, type.element, trans_a ? m : k, m * k,
            accumulate ? alpha : none, c, type.element, n, m * n, batch, type.compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx_64");
}

void gemm_bias(DType dtype, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const void* a, const void* b,
               const void* bias, void* c, const StreamView& stream) {
  if (m <= 0 || n <= 0) return;
  const bool real =
      dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16 || dtype == DType::float16;
  if (real && k > 0) {
    const cuda::DeviceScope scope(stream.device);
    if (multiply_with_bias(dtype, trans_b, m, n, k, a, b, bias, c, stream)) return;
  }
  const std::int64_t extents[] = {m, n}, repeated[] = {0, 1}, strides[] = {n, 1};
  strided_copy(size_of(dtype), 2, extents, bias, repeated, c, strides, stream);
  gemm(dtype, false, trans_b, {1, m, n, k}, a, b, c, true, stream);
}

void conjugate(DType dtype, const void* x, void* y, std::int64_t n, const StreamView& stream) {
  visit_some<TakesComplex>("a conjugate", dtype, [&]<class T>(T) {
    launch(ConjugateBody<T>{static_cast<const T*>(x), static_cast<T*>(y)}, n, stream);
  });
}

}  // namespace shardwise::detail::device
