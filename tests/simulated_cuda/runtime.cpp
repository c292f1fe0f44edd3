// The functions of the CUDA runtime that the library calls, for programs that are linked with this in place of it. The headers are
// NVIDIA's, so that a signature cannot differ.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "simulated_cuda/control.hpp"
#include "simulated_cuda/state.hpp"

using namespace simulated_cuda;

namespace {

cudaError_t& last_error() {
  thread_local cudaError_t code = cudaSuccess;
  return code;
}

int& visible_devices() {
  thread_local int count = Machine::devices;
  return count;
}

// A stream must be one that was made: the default stream would hide what its own ordering repairs.
bool valid(cudaStream_t stream) { return stream != nullptr && reinterpret_cast<std::uintptr_t>(stream) > 0xff; }

struct Pool {
  int device;
};

}  // namespace

cudaError_t simulated_cuda::finish(cudaError_t code) {
  if (code != cudaSuccess) last_error() = code;  // "not ready" too
  return code;
}

void simulated_cuda::see_devices(int count) { visible_devices() = count; }

#define SIMULATED_ENTRY(name) \
  if (const cudaError_t ordered = ordered_failure(#name); ordered != cudaSuccess) return finish(ordered)

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t code = last_error();
  last_error() = cudaSuccess;
  return code;
}

const char* cudaGetErrorName(cudaError_t code) {
  switch (code) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    default: return "an error without a name in the simulation";
  }
}
const char* cudaGetErrorString(cudaError_t) { return "simulated"; }

cudaError_t cudaGetDeviceCount(int* count) {
  SIMULATED_ENTRY(cudaGetDeviceCount);
  *count = visible_devices();
  return *count > 0 ? cudaSuccess : finish(cudaErrorNoDevice);
}
cudaError_t cudaDeviceGetPCIBusId(char* name, int size, int device) {
  SIMULATED_ENTRY(cudaDeviceGetPCIBusId);
  if (device < 0 || device >= Machine::devices) return finish(cudaErrorInvalidDevice);
  std::snprintf(name, static_cast<std::size_t>(size), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  SIMULATED_ENTRY(cudaGetDevice);
  *device = current_device();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  SIMULATED_ENTRY(cudaSetDevice);
  if (device < 0 || device >= Machine::devices) return finish(cudaErrorInvalidDevice);
  current_device() = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  SIMULATED_ENTRY(cudaDeviceSynchronize);
  std::vector<std::shared_ptr<Point>> points;
  {
    Machine& machine = Machine::get();
    const std::lock_guard lock(machine.streams_mutex);
    for (Stream* stream : machine.streams)
      if (stream->device() == current_device()) points.push_back(stream->mark());
  }
  for (const auto& point : points) point->wait();
  shut_memory_of(current_device());
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  SIMULATED_ENTRY(cudaStreamCreateWithFlags);
  Machine& machine = Machine::get();
  auto* const made = new Stream(current_device(), machine.next_seed());
  *stream = reinterpret_cast<cudaStream_t>(made);
  const std::lock_guard lock(machine.streams_mutex);
  machine.streams.push_back(made);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  SIMULATED_ENTRY(cudaStreamSynchronize);
  if (!valid(stream)) return finish(cudaErrorInvalidResourceHandle);
  stream_of(stream)->mark()->wait();
  shut_memory_of(stream_of(stream)->device());
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  SIMULATED_ENTRY(cudaStreamQuery);
  if (!valid(stream)) return finish(cudaErrorInvalidResourceHandle);
  return finish(stream_of(stream)->idle() ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  SIMULATED_ENTRY(cudaStreamWaitEvent);
  if (!valid(stream) || event == nullptr) return finish(cudaErrorInvalidResourceHandle);
  Machine& machine = Machine::get();
  ++machine.waits;
  if (machine.drops_waits) return cudaSuccess;
  const std::lock_guard lock(event_of(event)->mutex);
  if (const auto point = event_of(event)->point) stream_of(stream)->put([point] { point->wait(); }, false);
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  SIMULATED_ENTRY(cudaLaunchHostFunc);
  if (!valid(stream)) return finish(cudaErrorInvalidResourceHandle);
  stream_of(stream)->put([function, data] { function(data); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  SIMULATED_ENTRY(cudaEventCreateWithFlags);
  *event = reinterpret_cast<cudaEvent_t>(new Event{current_device(), {}, nullptr});
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  SIMULATED_ENTRY(cudaEventRecord);
  if (!valid(stream) || event == nullptr || stream_of(stream)->device() != event_of(event)->device)
    return finish(cudaErrorInvalidResourceHandle);
  auto point = stream_of(stream)->mark();
  const std::lock_guard lock(event_of(event)->mutex);
  event_of(event)->point = std::move(point);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  SIMULATED_ENTRY(cudaEventQuery);
  const std::lock_guard lock(event_of(event)->mutex);
  const auto& point = event_of(event)->point;
  return finish(point == nullptr || point->reached ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  SIMULATED_ENTRY(cudaEventSynchronize);
  std::shared_ptr<Point> point;
  {
    const std::lock_guard lock(event_of(event)->mutex);
    point = event_of(event)->point;
  }
  if (point != nullptr) point->wait();
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* props) {
  SIMULATED_ENTRY(cudaMemPoolCreate);
  if (props->location.type != cudaMemLocationTypeDevice || props->location.id < 0 ||
      props->location.id >= Machine::devices)
    return finish(cudaErrorInvalidValue);
  *pool = reinterpret_cast<cudaMemPool_t>(new Pool{props->location.id});
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  SIMULATED_ENTRY(cudaMemPoolSetAttribute);
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  SIMULATED_ENTRY(cudaMemPoolGetAttribute);
  if (attribute != cudaMemPoolAttrUsedMemCurrent && attribute != cudaMemPoolAttrReservedMemCurrent)
    return finish(cudaErrorInvalidValue);
  *static_cast<std::uint64_t*>(value) = Machine::get().memory(reinterpret_cast<Pool*>(pool)->device).used();
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* reaches, int user, int owner) {
  SIMULATED_ENTRY(cudaDeviceCanAccessPeer);
  if (user < 0 || user >= Machine::devices || owner < 0 || owner >= Machine::devices)
    return finish(cudaErrorInvalidDevice);
  *reaches = user != owner;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc* list, std::size_t count) {
  SIMULATED_ENTRY(cudaMemPoolSetAccess);
  const int owner = reinterpret_cast<Pool*>(pool)->device;
  for (std::size_t i = 0; i < count; ++i) {
    const int user = list[i].location.id;
    if (list[i].location.type != cudaMemLocationTypeDevice || user < 0 || user >= Machine::devices || user == owner)
      return finish(cudaErrorInvalidValue);
    Machine::get().reaches(user, owner) = list[i].flags == cudaMemAccessFlagsProtReadWrite;
  }
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) {
  SIMULATED_ENTRY(cudaMemPoolTrimTo);
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  SIMULATED_ENTRY(cudaMallocFromPoolAsync);
  if (!valid(stream)) return finish(cudaErrorInvalidResourceHandle);
  Machine& machine = Machine::get();
  void* const taken = machine.memory(reinterpret_cast<Pool*>(pool)->device).take(bytes, machine.limit);
  if (taken == nullptr) return finish(cudaErrorMemoryAllocation);
  *memory = taken;
  return cudaSuccess;
}
// In the order of the stream: whoever still uses the memory on another one then reads what nobody wrote.
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  SIMULATED_ENTRY(cudaFreeAsync);
  if (!valid(stream)) return finish(cudaErrorInvalidResourceHandle);
  const int device = Machine::get().device_of(memory);
  if (device < 0) return finish(cudaErrorInvalidValue);
  stream_of(stream)->put([memory, device] { Machine::get().memory(device).give(memory); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  SIMULATED_ENTRY(cudaHostAlloc);
  *memory = Machine::get().pinned().take(bytes, UINT64_MAX);
  return *memory != nullptr ? cudaSuccess : finish(cudaErrorMemoryAllocation);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  SIMULATED_ENTRY(cudaMemcpyAsync);
  if (!valid(stream)) return finish(cudaErrorInvalidResourceHandle);
  Machine& machine = Machine::get();
  const int to_device = machine.device_of(to), from_device = machine.device_of(from);
  const bool device_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool device_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (device_to != (to_device >= 0) || device_from != (from_device >= 0)) return finish(cudaErrorInvalidValue);
  if (device_to && !machine.memory(to_device).holds(to, bytes)) return finish(cudaErrorInvalidValue);
  if (device_from && !machine.memory(from_device).holds(from, bytes)) return finish(cudaErrorInvalidValue);
  if (!device_from && !machine.pinned().contains(from)) {  // read before the call returns
    const auto* const first = static_cast<const std::byte*>(from);
    stream_of(stream)->put([to, held = std::vector<std::byte>(first, first + bytes)] {
      const AllOpened opened;
      std::memcpy(to, held.data(), held.size());
    });
    return cudaSuccess;
  }
  stream_of(stream)->put([to, from, bytes] {
    const AllOpened opened;
    std::memmove(to, from, bytes);
  });
  if (!device_to && !machine.pinned().contains(to)) stream_of(stream)->mark()->wait();
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  SIMULATED_ENTRY(cudaMemsetAsync);
  if (!valid(stream) || stream_of(stream)->device() != current_device()) return finish(cudaErrorInvalidResourceHandle);
  const int device = Machine::get().device_of(memory);
  if (device < 0 || !Machine::get().memory(device).holds(memory, bytes)) return finish(cudaErrorInvalidValue);
  stream_of(stream)->put([memory, value, bytes] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}

}  // extern "C"
