// Copies between host and device in the order of a stream, and pinned host memory, without which they hold up the host.
// Layer: cuda.
#pragma once

#include <bit>
#include <cstddef>
#include <mutex>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardwise/base/buffer.hpp>
#include <shardwise/cuda/memory.hpp>

namespace shardwise::detail {

// Pinned blocks of 2^c bytes that were given back, each with the point on a stream behind which it may serve again. Pinning costs
// about a millisecond: no block is ever unpinned. Never destroyed, as the pools of streams.
class PinnedPool {
 public:
  struct Free {
    void* memory;
    std::vector<cuda::Event> busy;
  };

  static PinnedPool& global() {
    static auto* pool = new PinnedPool;
    return *pool;
  }
  void* take(int size_class) {
    {
      const std::lock_guard lock(mutex_);
      auto& list = free_[size_class];
      for (std::size_t i = list.size(); i-- > 0;) {
        while (!list[i].busy.empty() && list[i].busy.back().query()) list[i].busy.pop_back();
        if (!list[i].busy.empty()) continue;
        void* const memory = list[i].memory;
        if (i + 1 < list.size()) list[i] = std::move(list.back());
        list.pop_back();
        return memory;
      }
    }
    void* memory = nullptr;
    SHARDWISE_CUDA(cudaHostAlloc(&memory, std::size_t{1} << size_class, cudaHostAllocPortable));
    return memory;
  }
  void give(int size_class, Free block) {
    const std::lock_guard lock(mutex_);
    free_[size_class].push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<Free> free_[64];
};

struct PinnedRecord {
  void* memory;
  int size_class;
  UsedStreams* used;  // streams with copies from or to it; null: none
};

inline void give_pinned_memory(Block& block) noexcept {
  auto& record = *reinterpret_cast<PinnedRecord*>(&block + 1);
  PinnedPool::Free free{record.memory, {}};
  if (record.used != nullptr) {
    for (const cuda::StreamView& stream : *record.used) {
      try {
        free.busy.emplace_back(stream);
      } catch (...) {
        static_cast<void>(cudaStreamSynchronize(stream.handle));
      }
    }
    delete record.used;
  }
  PinnedPool::global().give(record.size_class, std::move(free));
}

// `bytes` of host memory that a device reads and writes by itself; elements not set.
inline Buffer pinned_buffer(std::size_t bytes) {
  const int size_class = bytes <= 512 ? 9 : static_cast<int>(std::bit_width(bytes - 1));
  void* const memory = PinnedPool::global().take(size_class);
  return Buffer::elsewhere(memory, bytes, PinnedRecord{memory, size_class, nullptr}, &give_pinned_memory);
}

inline void record_pinned(const Buffer& buffer, const cuda::StreamView& stream) {
  auto* record = buffer.record<PinnedRecord>(&give_pinned_memory);
  if (record == nullptr) return;
  add_used_stream(record->used, stream);
}

// Copies in the order of `stream`. The host waits for nothing where its side is pinned; either handle may go at once. From memory
// that is not pinned the call returns when the bytes have been read; to such memory, when they have been written.
inline void copy_to_device(const Buffer& to, const Buffer& from, std::size_t bytes, const cuda::StreamView& stream) {
  if (bytes == 0) return;
  record_stream(to, stream);
  record_pinned(from, stream);
  SHARDWISE_CUDA(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyHostToDevice, stream.handle));
}
inline void copy_to_host(const Buffer& to, const Buffer& from, std::size_t bytes, const cuda::StreamView& stream) {
  if (bytes == 0) return;
  record_stream(from, stream);
  record_pinned(to, stream);
  SHARDWISE_CUDA(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToHost, stream.handle));
}
inline void copy_on_device(const Buffer& to, const Buffer& from, std::size_t bytes, const cuda::StreamView& stream) {
  if (bytes == 0) return;
  record_stream(to, stream);
  record_stream(from, stream);
  SHARDWISE_CUDA(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream.handle));
}

}  // namespace shardwise::detail
