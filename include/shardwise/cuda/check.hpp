// CudaError and the check that throws it: the call and the error by their names. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include <cuda_runtime_api.h>

#include <shardwise/base/error.hpp>
#include <shardwise/base/text.hpp>

namespace shardwise {

/// A call of the CUDA runtime that failed. The message names the call and the error; `code()` is the runtime's number.
class CudaError : public Error {
 public:
  CudaError(const std::string& message, cudaError_t code) : Error(message), code_(code) {}
  cudaError_t code() const { return code_; }

 private:
  cudaError_t code_;
};

namespace detail {

// `call` is the source text: what stands before its first parenthesis is the name.
[[noreturn, gnu::noinline, gnu::cold]] inline void cuda_failed(cudaError_t code, const char* call) {
  static_cast<void>(cudaGetLastError());  // said once; an error that is not forgotten comes back at the next call
  const std::string_view name(call, std::strcspn(call, "("));
  const char* advice = "";
  if (code == cudaErrorInsufficientDriver || code == cudaErrorNoDevice)
    advice = "; there is no CUDA device, or its driver is older than the toolkit: nvidia-smi says which";
  else if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorUnsupportedPtxVersion)
    advice =
        "; the library was not built for this device: name its architecture in CMAKE_CUDA_ARCHITECTURES and build again";
  throw CudaError(
      text("shardwise: ", name, " failed: ", cudaGetErrorName(code), " (", cudaGetErrorString(code), ")", advice),
      code);
}

}  // namespace detail

}  // namespace shardwise

/// Calls a function of the CUDA runtime; throws `shardwise::CudaError` unless it gives cudaSuccess.
#define SHARDWISE_CUDA(call)                                        \
  do {                                                              \
    const cudaError_t shardwise_cuda_code = (call);                 \
    if (shardwise_cuda_code != cudaSuccess) [[unlikely]]            \
      ::shardwise::detail::cuda_failed(shardwise_cuda_code, #call); \
  } while (false)
