// Streams and events: in which order a device works. Streams are lent by a pool and never destroyed, so that memory may be given
// back to one after its owner is gone. Layer: cuda.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardwise/base/error.hpp>
#include <shardwise/cuda/device.hpp>

namespace shardwise::detail {

// Objects of each device that are lent and given back, and live as long as the process. Never destroyed: at exit the runtime may
// be gone before the last tensor.
template <class Object>
class LentPool {
 public:
  static LentPool& global() {
    static auto* pool = new LentPool;
    return *pool;
  }
  // One that was given back, or null.
  Object take(int device) {
    const std::lock_guard lock(mutex_);
    std::vector<Object>& free = of(device);
    if (free.empty()) return nullptr;
    const Object object = free.back();
    free.pop_back();
    return object;
  }
  void give(int device, Object object) {
    const std::lock_guard lock(mutex_);
    of(device).push_back(object);
  }

 private:
  std::vector<Object>& of(int device) {
    const auto d = static_cast<std::size_t>(device);
    if (free_.size() <= d) free_.resize(d + 1);
    return free_[d];
  }
  std::mutex mutex_;
  std::vector<std::vector<Object>> free_;
};

// What a query found. The runtime keeps "not ready" as its last error too, for whoever asks next: it is taken back.
inline bool reached(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return true;
  if (code != cudaErrorNotReady) cuda_failed(code, call);
  static_cast<void>(cudaGetLastError());
  return false;
}

inline cudaStream_t take_stream(int device) {
  cudaStream_t stream = LentPool<cudaStream_t>::global().take(device);
  if (stream != nullptr) return stream;
  const cuda::DeviceScope scope(device);
  SHARDWISE_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}
inline cudaEvent_t take_event(int device) {
  cudaEvent_t event = LentPool<cudaEvent_t>::global().take(device);
  if (event != nullptr) return event;
  const cuda::DeviceScope scope(device);
  SHARDWISE_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

}  // namespace shardwise::detail

namespace shardwise::cuda {

/// A stream that somebody else keeps: what functions take. Made by hand it names a stream of the caller's, which must live as long
/// as memory that was allocated on it.
struct StreamView {
  cudaStream_t handle = nullptr;
  int device = 0;

  /// Waits until everything on the stream is done.
  void synchronize() const { SHARDWISE_CUDA(cudaStreamSynchronize(handle)); }
  /// Whether everything on the stream is done.
  bool query() const { return detail::reached(cudaStreamQuery(handle), "cudaStreamQuery"); }
  /// What is put on this stream from now on starts after everything that is on `other` now. The host waits for nothing.
  void wait(const StreamView& other) const;

  friend bool operator==(const StreamView&, const StreamView&) = default;
};

/// A point on a stream. Without timing. PyTorch: `torch.cuda.Event`.
class Event {
 public:
  /// Behind everything that is on `stream` now.
  explicit Event(const StreamView& stream) : device_(stream.device), event_(detail::take_event(stream.device)) {
    record(stream);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  Event(Event&& other) noexcept : device_(other.device_), event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(event_, other.event_);
    return *this;
  }
  // A wait that was put on a stream holds what was recorded then: the event may serve again at once.
  ~Event() {
    if (event_ != nullptr) detail::LentPool<cudaEvent_t>::global().give(device_, event_);
  }

  /// Moves the point behind everything that is on `stream` now; a stream of the same device.
  void record(const StreamView& stream) { SHARDWISE_CUDA(cudaEventRecord(event_, stream.handle)); }
  /// What is put on `stream` from now on starts after the point. The host waits for nothing.
  void block(const StreamView& stream) const { SHARDWISE_CUDA(cudaStreamWaitEvent(stream.handle, event_, 0)); }
  /// Whether the point was reached.
  bool query() const { return detail::reached(cudaEventQuery(event_), "cudaEventQuery"); }
  /// Waits until the point is reached.
  void synchronize() const { SHARDWISE_CUDA(cudaEventSynchronize(event_)); }

 private:
  int device_;
  cudaEvent_t event_;
};

inline void StreamView::wait(const StreamView& other) const {
  if (*this == other) return;
  Event(other).block(*this);
}

/// A stream of the calling thread's device, which does not wait for the default stream. PyTorch: `torch.cuda.Stream`.
class Stream {
 public:
  Stream() : Stream(current_device()) {}
  explicit Stream(int device) : view_{detail::take_stream(device), device} {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Stream(Stream&& other) noexcept : view_(std::exchange(other.view_, StreamView{})) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(view_, other.view_);
    return *this;
  }
  ~Stream() {
    if (view_.handle != nullptr) detail::LentPool<cudaStream_t>::global().give(view_.device, view_.handle);
  }

  operator const StreamView&() const { return view_; }  // NOLINT: a stream is taken where a view is
  const StreamView& view() const { return view_; }
  void synchronize() const { view_.synchronize(); }
  bool query() const { return view_.query(); }
  void wait(const StreamView& other) const { view_.wait(other); }

 private:
  StreamView view_;
};

}  // namespace shardwise::cuda

namespace shardwise::detail {

// The streams on which the calling thread works, one a device: its own, made where they are asked for, until a scope sets another.
struct CurrentStreams {
  std::vector<cuda::StreamView> own;
  std::vector<cuda::StreamView> current;

  CurrentStreams() = default;
  CurrentStreams(const CurrentStreams&) = delete;
  CurrentStreams& operator=(const CurrentStreams&) = delete;
  ~CurrentStreams() {
    for (const cuda::StreamView& stream : own)
      if (stream.handle != nullptr) LentPool<cudaStream_t>::global().give(stream.device, stream.handle);
  }

  cuda::StreamView& of(int device) {
    const auto d = static_cast<std::size_t>(device);
    if (own.size() <= d) {
      own.resize(d + 1);
      current.resize(d + 1);
    }
    if (own[d].handle == nullptr) current[d] = own[d] = cuda::StreamView{take_stream(device), device};
    return current[d];
  }
};
inline CurrentStreams& current_streams() {
  thread_local CurrentStreams streams;
  return streams;
}

}  // namespace shardwise::detail

namespace shardwise::cuda {

/// The stream on which the calling thread's operators work. Each thread has its own: ranks that are threads do not wait for each
/// other. PyTorch: `torch.cuda.current_stream`.
inline StreamView current_stream(int device) { return detail::current_streams().of(device); }
inline StreamView current_stream() { return current_stream(current_device()); }

/// Another stream for the calling thread's operators, until the end of the scope. Orders nothing by itself: `wait` does.
/// PyTorch: `torch.cuda.stream`.
class StreamScope {
 public:
  explicit StreamScope(const StreamView& stream)
      : before_(std::exchange(detail::current_streams().of(stream.device), stream)) {}
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;
  ~StreamScope() { detail::current_streams().of(before_.device) = before_; }

 private:
  StreamView before_;
};

}  // namespace shardwise::cuda
