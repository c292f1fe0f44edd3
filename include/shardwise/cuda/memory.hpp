// Device memory: Buffers whose elements lie on a device, allocated and given back in the order of a stream. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardwise/base/buffer.hpp>
#include <shardwise/cuda/stream.hpp>

namespace shardwise::detail {

// A memory pool of the library's own on each device: how long the default one keeps memory is its user's choice. It keeps
// everything: a repeated allocation asks the driver for nothing.
inline cudaMemPool_t device_pool(int device) {
  static std::mutex mutex;
  static auto* pools = new std::vector<cudaMemPool_t>;
  const std::lock_guard lock(mutex);
  const auto d = static_cast<std::size_t>(device);
  if (pools->size() <= d) pools->resize(d + 1);
  if ((*pools)[d] == nullptr) {
    cudaMemPoolProps props{};
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    props.location.id = device;
    cudaMemPool_t pool = nullptr;
    SHARDWISE_CUDA(cudaMemPoolCreate(&pool, &props));
    std::uint64_t everything = UINT64_MAX;
    SHARDWISE_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything));
    (*pools)[d] = pool;
  }
  return (*pools)[d];
}

// Lets kernels of device `user` reach what lies in the pool of `owner`, where the devices can.
inline void open_device_pool(int owner, int user) {
  int reaches = 0;
  SHARDWISE_CUDA(cudaDeviceCanAccessPeer(&reaches, user, owner));
  if (reaches == 0) return;
  cudaMemAccessDesc access{};
  access.location.type = cudaMemLocationTypeDevice;
  access.location.id = user;
  access.flags = cudaMemAccessFlagsProtReadWrite;
  SHARDWISE_CUDA(cudaMemPoolSetAccess(device_pool(owner), &access, 1));
}
// Ranks that are threads of one process: NCCL reads and writes their tensors across devices where it can ("P2P/direct"). For what
// cudaMalloc gives it sees to that itself; a pool opens to another device only here. Called for each device of a rank before the ranks
// meet: its pool and those of all devices before it then open to each other.
inline void open_device_pools(int device) {
  static std::mutex mutex;
  static auto* known = new std::vector<int>;
  const std::lock_guard lock(mutex);
  for (const int other : *known)
    if (other == device) return;
  for (const int other : *known) {
    open_device_pool(other, device);
    open_device_pool(device, other);
  }
  known->push_back(device);
}

// Streams that use memory, beside the one that it came from: a short list, made where there is one.
using UsedStreams = std::vector<cuda::StreamView>;

// What stands for a block of device memory.
struct DeviceRecord {
  void* memory;
  cuda::StreamView home;  // allocated here, given back here
  UsedStreams* used;  // others that were told to read or write it; null: none
};

// One lock for all lists of streams: a block that is used on more than its own stream is rare.
inline std::mutex& used_streams_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

inline void add_used_stream(UsedStreams*& used, const cuda::StreamView& stream) {
  const std::lock_guard lock(used_streams_mutex());
  if (used == nullptr) used = new UsedStreams;
  for (const cuda::StreamView& known : *used)
    if (known == stream) return;
  used->push_back(stream);
}

// The home stream first waits for the others, then the memory is free for what comes later on it. Errors are left to the next call:
// one that is not forgotten comes back there, and at exit the runtime may be gone.
inline void give_device_memory(Block& block) noexcept {
  auto& record = *reinterpret_cast<DeviceRecord*>(&block + 1);
  if (record.used != nullptr) {
    for (const cuda::StreamView& stream : *record.used) {
      try {
        cuda::Event(stream).block(record.home);
      } catch (...) {
        static_cast<void>(cudaStreamSynchronize(stream.handle));
      }
    }
    delete record.used;
  }
  static_cast<void>(cudaFreeAsync(record.memory, record.home.handle));
}

[[noreturn, gnu::cold]] inline void device_memory_exhausted(std::size_t bytes, int device, cudaMemPool_t pool) {
  static_cast<void>(cudaGetLastError());
  std::uint64_t used = 0, reserved = 0;
  static_cast<void>(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  static_cast<void>(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
  throw CudaError(text("shardwise: device ", device, " has no ", bytes, " bytes left; this process holds ", used,
                       " in tensors there and ", reserved, " in its pool"),
                  cudaErrorMemoryAllocation);
}

}  // namespace shardwise::detail

namespace shardwise::cuda {

/// Memory that nobody holds goes back to the device. PyTorch: `torch.cuda.empty_cache`.
inline void empty_cache(int device) { SHARDWISE_CUDA(cudaMemPoolTrimTo(detail::device_pool(device), 0)); }
inline void empty_cache() { empty_cache(current_device()); }

}  // namespace shardwise::cuda

namespace shardwise::detail {

// `bytes` on the device of `stream`, elements not set: for use on that stream at once, on others after they waited for it
// (record_stream). Throws CudaError where the device has no memory left.
inline Buffer device_buffer(std::size_t bytes, const cuda::StreamView& stream) {
  const cudaMemPool_t pool = device_pool(stream.device);
  const std::size_t asked = bytes > 0 ? bytes : 1;  // a buffer without elements has an address all the same
  void* memory = nullptr;
  cudaError_t code = cudaMallocFromPoolAsync(&memory, asked, pool, stream.handle);
  if (code == cudaErrorMemoryAllocation) {  // what other streams gave back may not be free yet
    static_cast<void>(cudaGetLastError());
    const cuda::DeviceScope scope(stream.device);
    cuda::synchronize();
    cuda::empty_cache(stream.device);
    code = cudaMallocFromPoolAsync(&memory, asked, pool, stream.handle);
    if (code == cudaErrorMemoryAllocation) device_memory_exhausted(bytes, stream.device, pool);
  }
  if (code != cudaSuccess) cuda_failed(code, "cudaMallocFromPoolAsync");
  return Buffer::elsewhere(memory, bytes, DeviceRecord{memory, stream, nullptr}, &give_device_memory);
}

// The buffer is in use on `stream` too: when its last handle goes, its memory stays until that stream has come this far. Nothing
// for memory that is not the library's own: its owner keeps it. PyTorch: `Tensor.record_stream`.
inline void record_stream(const Buffer& buffer, const cuda::StreamView& stream) {
  auto* record = buffer.record<DeviceRecord>(&give_device_memory);
  if (record == nullptr || record->home == stream) return;
  add_used_stream(record->used, stream);
}

// The same for an operand of what is put on `stream`. Throws `Error` where it lies on another device.
inline void use_on(const Buffer& buffer, const cuda::StreamView& stream) {
  const auto* record = buffer.record<DeviceRecord>(&give_device_memory);
  if (record == nullptr) return;
  const int device = record->home.device;
  SHARDWISE_REQUIRE(device == stream.device,
                    text("shardwise: an operand lies on device ", device, " and the calling thread works on device ",
                         stream.device, "; call cuda::set_device(", device, ") before it"));
  record_stream(buffer, stream);
}

// Zeros in the order of `stream`. (A copy may be put on a stream of a device that is not current, a memset may not.)
inline void zero_device_memory(void* memory, std::size_t bytes, const cuda::StreamView& stream) {
  if (bytes == 0) return;
  const cuda::DeviceScope scope(stream.device);
  SHARDWISE_CUDA(cudaMemsetAsync(memory, 0, bytes, stream.handle));
}

}  // namespace shardwise::detail
