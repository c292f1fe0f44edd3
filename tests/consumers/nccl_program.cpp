// A user of the component nccl: the launched processes as GPUs. Without a device the library says so.
#include <shardwise/backends/nccl.hpp>

#include <cstdio>
#include <string>

using namespace shardwise;

int main() {
#if !defined(SHARDWISE_HAS_NCCL)
#error the component nccl says that it is there
#endif
  try {
    const NcclCommunicator world;
    world.barrier();
    std::printf("nccl program: good, rank %d of %d\n", world.rank(), world.size());
    return 0;
  } catch (const Error& e) {
    if (cuda::is_available() || std::string(e.what()).find("has no CUDA device") == std::string::npos) {
      std::printf("nccl program: bad: %s\n", e.what());
      return 1;
    }
    std::printf("skipped: no CUDA device: %s\n", e.what());
    return 0;
  }
}
