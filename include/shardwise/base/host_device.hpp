// SHARDWISE_HOST_DEVICE: marks what nvcc compiles for the host and for the device; nothing to any other compiler. Layer: base.
#pragma once

#if defined(__CUDACC__)
#define SHARDWISE_HOST_DEVICE __host__ __device__
#else
#define SHARDWISE_HOST_DEVICE
#endif
