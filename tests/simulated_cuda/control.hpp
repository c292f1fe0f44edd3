// What a test may order of the simulated CUDA runtime. Not part of it: a program that is built for a device has none of this.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace simulated_cuda {

/// Waits of a stream for an event do nothing from now on: a program that needs them then reads what is not there yet.
/// SHARDWISE_SIMULATION_DROP_WAITS=1 in the environment does the same for a whole run.
void drop_waits(bool drop);

/// The next call of the function with this name fails with `code` and does nothing.
void fail_next(const char* name, cudaError_t code);

/// The calling thread sees this many devices from now on.
void see_devices(int count);

/// Bytes that a device has from now on.
void limit_memory(std::uint64_t bytes);

/// The next collective of a rank on this device does not happen there; NCCL finds `result` (an ncclResult_t) in the background.
void fail_next_collective(int device, int result);

/// Waits of streams for events that were asked for so far, dropped ones included.
std::int64_t waits();

}  // namespace simulated_cuda
