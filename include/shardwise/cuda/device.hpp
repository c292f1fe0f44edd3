// CUDA devices: how many there are, which one the calling thread uses. Layer: cuda.
#pragma once

#include <cuda_runtime_api.h>

#include <shardwise/cuda/check.hpp>

namespace shardwise::cuda {

/// CUDA devices that can be used; 0 without a driver. PyTorch: `torch.cuda.device_count`.
inline int device_count() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  if (code != cudaSuccess) detail::cuda_failed(code, "cudaGetDeviceCount");
  return count;
}

/// Whether there is a device. PyTorch: `torch.cuda.is_available`.
inline bool is_available() { return device_count() > 0; }

/// The calling thread's device. PyTorch: `torch.cuda.current_device`.
inline int current_device() {
  int device = 0;
  SHARDWISE_CUDA(cudaGetDevice(&device));
  return device;
}

/// Sets the calling thread's device, which each rank that is a thread does for itself. Throws `CudaError` for a device that is
/// not there. PyTorch: `torch.cuda.set_device`.
inline void set_device(int device) { SHARDWISE_CUDA(cudaSetDevice(device)); }

/// Another device for the calling thread, until the end of the scope. PyTorch: `torch.cuda.device`.
class DeviceScope {
 public:
  explicit DeviceScope(int device) : before_(current_device()), changed_(device != before_) {
    if (changed_) set_device(device);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  ~DeviceScope() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
  }

 private:
  int before_;
  bool changed_;
};

/// Waits until everything that the calling thread's device was given is done. PyTorch: `torch.cuda.synchronize`.
inline void synchronize() { SHARDWISE_CUDA(cudaDeviceSynchronize()); }

}  // namespace shardwise::cuda
