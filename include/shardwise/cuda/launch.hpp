// launch, launch_teams: run a body for every index, in the order of a stream. A body is an object that is copied bit by bit and
// called with an index; what it is told apart from that it carries. nvcc makes a kernel of it; any other compiler makes a function
// that the stream calls on the host (cudaLaunchHostFunc), which only a simulated device can do: same bodies, same indices.
// Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <cuda_runtime_api.h>

#include <shardwise/base/host_device.hpp>
#include <shardwise/cuda/stream.hpp>
#include <shardwise/cuda/team.hpp>

namespace shardwise::detail::device {

// What every device takes: arguments of 4 KiB, static shared memory of 48 KiB.
template <class Body>
inline constexpr bool fits_a_launch = std::is_trivially_copyable_v<Body> && sizeof(Body) + sizeof(std::int64_t) <= 4096;
template <class Body>
inline constexpr bool fits_a_team_launch = fits_a_launch<Body> && team_bytes<Body> <= 48 * 1024;

#if defined(__CUDACC__)

inline constexpr int element_threads = 256;

template <class Body>
__global__ void __launch_bounds__(element_threads) element_kernel(const __grid_constant__ Body body, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * element_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * element_threads + threadIdx.x; i < n; i += step) body(i);
}

template <class Body>
__global__ void __launch_bounds__(max_lanes) team_kernel(const __grid_constant__ Body body, std::int64_t teams) {
  __shared__ alignas(16) std::byte memory[team_bytes<Body>];
  const BlockTeam team{memory};
  for (std::int64_t t = blockIdx.x; t < teams; t += gridDim.x) {
    body(t, team);
    team.sync();  // the next one may write to what this one reads
  }
}

// Enough blocks to fill the device several times: whoever is done early takes over from who is late.
inline unsigned grid_of(std::int64_t blocks, int device, int blocks_each) {
  int processors = 0;
  SHARDWISE_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  const std::int64_t most = std::int64_t{processors} * blocks_each;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// The launch's own error; cudaGetLastError would give one that somebody else left behind.
template <class Body>
void start(void (*kernel)(const Body, std::int64_t), const Body& body, std::int64_t n, unsigned grid, unsigned threads,
           const cuda::StreamView& stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid);
  config.blockDim = dim3(threads);
  config.stream = stream.handle;
  SHARDWISE_CUDA(cudaLaunchKernelEx(&config, kernel, body, n));
}

/// Calls body(i) for i in [0, n). No index may write what another one reads.
template <class Body>
void launch(const Body& body, std::int64_t n, const cuda::StreamView& stream) {
  static_assert(fits_a_launch<Body>);
  if (n <= 0) return;  // a grid without blocks is an error
  const cuda::DeviceScope scope(stream.device);
  const unsigned grid = grid_of((n + element_threads - 1) / element_threads, stream.device, 32);
  start(element_kernel<Body>, body, n, grid, element_threads, stream);
}

/// Calls body(t, team) for t in [0, teams), each by `lanes` threads: a multiple of 32, at most 512.
template <class Body>
void launch_teams(const Body& body, std::int64_t teams, int lanes, const cuda::StreamView& stream) {
  static_assert(fits_a_team_launch<Body>);
  if (teams <= 0) return;
  const cuda::DeviceScope scope(stream.device);
  const unsigned grid = grid_of(teams, stream.device, 32 * max_lanes / lanes);
  start(team_kernel<Body>, body, teams, grid, static_cast<unsigned>(lanes), stream);
}

#else

// Calls a copy of `run` when the stream comes to it.
template <class Run>
void put_on_stream(const Run& run, const cuda::StreamView& stream) {
  auto* const copy = new Run(run);
  const cudaError_t code = cudaLaunchHostFunc(
      stream.handle,
      [](void* data) {
        auto* const held = static_cast<Run*>(data);
        (*held)();
        delete held;
      },
      copy);
  if (code == cudaSuccess) return;
  delete copy;
  cuda_failed(code, "cudaLaunchHostFunc");
}

template <class Body>
void launch(const Body& body, std::int64_t n, const cuda::StreamView& stream) {
  static_assert(fits_a_launch<Body>);
  if (n <= 0) return;
  put_on_stream(
      [body, n] {
        for (std::int64_t i = n; i-- > 0;) body(i);  // not in the usual order: a device has none
      },
      stream);
}

template <class Body>
void launch_teams(const Body& body, std::int64_t teams, int lanes, const cuda::StreamView& stream) {
  static_assert(fits_a_team_launch<Body>);
  if (teams <= 0) return;
  if (lanes < 32 || lanes > max_lanes || lanes % 32 != 0) cuda_failed(cudaErrorInvalidConfiguration, "launch_teams");
  put_on_stream(
      [body, teams, lanes] {
        alignas(16) std::byte memory[team_bytes<Body>];
        for (std::int64_t t = teams; t-- > 0;) body(t, LaneTeam{memory, lanes});
      },
      stream);
}

#endif

}  // namespace shardwise::detail::device
