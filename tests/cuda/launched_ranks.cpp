// Launched processes as GPUs: launch.sh --backend nccl launched_ranks. Ranks that see one device between them share it, as
// docs/gpu.md says: slow, but right. What every communicator does, redistributions against the tensor that they started from, and what the
// others are told of a rank that fails.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/core.hpp>
#include <shardwise/device/redistribute.hpp>

#include "comm/conformance.hpp"
#include "cuda/host_facing.hpp"

namespace {

using namespace shardwise;

// Before the first call of NCCL, which reads them once. On one host NCCL refuses two ranks of one device; ranks of several, by
// these names, talk over the loopback.
void share_a_device(const std::string& rank) {
  const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), 0); };
  set("NCCL_HOSTID", "rank" + rank);
  set("NCCL_NET", "Socket");
  set("NCCL_SOCKET_IFNAME", "lo");
  for (const char* const name : {"NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_MAX_CTAS"})
    set(name, "1");
  for (const char* const name : {"NCCL_MNNVL_ENABLE", "NCCL_NVLS_ENABLE", "NCCL_RAS_ENABLE"}) set(name, "0");
}

template <class From, class To, class Mesh>
void move(const Mesh& mesh, const Tensor<float, 2>& whole, const char* name) {
  const auto there = redistribute<From>(distribute_tensor<Replicate>(to_device(whole), mesh));
  const auto back = to_host(redistribute<Replicate>(redistribute<To>(there)).to_local());
  cuda::current_stream().synchronize();
  test::conform(equal(back, whole), name);
}

void run() {
  const NcclCommunicator world(std::chrono::seconds(60));
  test::conforms(test::HostFacing(world));
  const auto mesh = init_device_mesh<"tp">(world, {world.size()});
  const Tensor<float, 2> whole = rand<float>({37, 21});
  move<Shard<0>, Shard<1>>(mesh, whole, "S0->S1");
  move<Shard<1>, Shard<0>>(mesh, whole, "S1->S0");
  move<Shard<0>, Replicate>(mesh, whole, "S0->R");
  move<Partial<>, Replicate>(mesh, whole, "P->R");
  move<Partial<>, Shard<1>>(mesh, whole, "P->S1");

  if (world.size() == 1) return;
  if (world.rank() == world.size() - 1) return world.abort("out of cheese");
  try {
    world.barrier();
  } catch (const PeerFailedError& e) {
    const std::string want = "rank " + std::to_string(world.size() - 1) + " aborted: out of cheese";
    test::conform(std::string(e.what()).find(want) != std::string::npos, std::string("the reason: ") + e.what());
    return;
  }
  test::conform(false, "a PeerFailedError");
}

}  // namespace

int main() {
  if (!cuda::is_available()) {
    std::puts("SKIPPED: no CUDA device: launched processes as GPUs");
    return 77;
  }
  const char* const rank = std::getenv("SHARDWISE_RANK");
  if (cuda::device_count() == 1 && rank != nullptr) share_a_device(rank);
  try {
    run();
  } catch (const std::exception& e) {
    std::printf("failed: %s\n", e.what());
    return 1;
  }
  std::puts("good");
  return 0;
}
