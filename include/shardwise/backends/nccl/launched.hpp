// How the launched processes become ranks of a NCCL world: each has a device, and what NCCL's ranks share before they meet goes through
// the processes' store. Layer: backends/nccl.
#pragma once

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/nccl/group.hpp>
#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/last_words.hpp>
#include <shardwise/backends/process/place.hpp>
#include <shardwise/backends/process/world.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/text.hpp>
#include <shardwise/cuda/device.hpp>

namespace shardwise {

/// What the ranks of a NCCL world share before they meet: one of them makes it, the others are told its bytes.
inline ncclUniqueId nccl_unique_id() {
  ncclUniqueId unique;
  const ncclResult_t result = ncclGetUniqueId(&unique);
  SHARDWISE_REQUIRE(result == ncclSuccess, detail::text("shardwise: ncclGetUniqueId: ", ncclGetErrorString(result)),
                    CommError);
  return unique;
}

namespace detail {

// The device of a rank: the only one that it sees, or else that of its number on its host.
inline int device_of_rank(int rank, int number_on_host) {
  const int devices = cuda::device_count();
  SHARDWISE_REQUIRE(devices > 0,
                    text("shardwise::NcclCommunicator: rank ", rank,
                         " has no CUDA device, or a driver that is older than the toolkit (nvidia-smi says "
                         "which): start it where there is one; ranks without use GlooCommunicator"));
  if (devices == 1) return 0;
  SHARDWISE_REQUIRE(number_on_host < devices,
                    text("shardwise::NcclCommunicator: rank ", rank, " is rank ", number_on_host,
                         " (from 0) of its host, which has ", devices,
                         " CUDA devices: start at most one rank a device, or give each its own in "
                         "CUDA_VISIBLE_DEVICES"));
  return number_on_host;
}

// What NCCL tells devices apart by: the host, or what stands for it, and the device's place there.
inline std::string address_of(int device, const std::string& host) {
  char bus[32] = {};
  SHARDWISE_CUDA(cudaDeviceGetPCIBusId(bus, sizeof bus, device));
  const char* const renamed = std::getenv("NCCL_HOSTID");
  return text(renamed != nullptr ? renamed : host.c_str(), " ", bus);
}

// Throws: Error for two ranks of one device, which NCCL refuses without saying so to all.
inline void require_own_devices(const std::vector<std::string>& addresses) {
  const char* const shared = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  if (shared != nullptr && std::string_view(shared) == "1") return;
  for (std::size_t b = 1; b < addresses.size(); ++b)
    for (std::size_t a = 0; a < b; ++a)
      SHARDWISE_REQUIRE(addresses[a] != addresses[b],
                        text("shardwise::NcclCommunicator: ranks ", a, " and ", b, " have the same CUDA device, ",
                             std::string_view(addresses[a]).substr(addresses[a].rfind(' ') + 1),
                             ": start at most one rank a device (docs/gpu.md says how tests share one)"));
}

// The ranks of `world` as GPUs. Throws: Error where a rank has no device of its own, which the others get as PeerFailedError.
inline std::shared_ptr<NcclGroup> meet_over_nccl(const std::shared_ptr<ProcessWorld>& world, int number_on_host,
                                                 std::chrono::milliseconds deadline) {
  const int rank = world->rank(), size = world->size();
  const std::string prefix = text("nccl ", world->next_number(), " ");
  const auto address_key = [&](int r) { return std::string(text(prefix, "device of ", r)); };
  const std::vector<std::string>& hosts = world->hosts();
  const auto self = static_cast<std::size_t>(rank);
  if (number_on_host < 0) {
    number_on_host = 0;
    for (std::size_t r = 0; r < self; ++r) number_on_host += hosts[r] == hosts[self];
  }
  ncclUniqueId unique;
  try {
    const int device = device_of_rank(rank, number_on_host);
    cuda::set_device(device);
    KeyValueStore& store = world->store();
    store.set(address_key(rank), address_of(device, hosts[self]));
    std::vector<std::string> addresses;
    for (int r = 0; r < size; ++r) addresses.push_back(store.get(address_key(r), deadline));
    require_own_devices(addresses);
    const std::string key = text(prefix, "id");
    if (rank == 0) {
      const ncclUniqueId made = nccl_unique_id();
      store.set(key, std::string(made.internal, sizeof made.internal));
    }
    const std::string bytes = store.get(key, deadline);
    SHARDWISE_REQUIRE(bytes.size() == sizeof unique.internal,
                      text("shardwise::NcclCommunicator: rank 0's NCCL id has ", bytes.size(), " bytes, here it has ",
                           sizeof unique.internal, ": do all ranks run the same program?"),
                      CommError);
    std::memcpy(unique.internal, bytes.data(), bytes.size());
  } catch (const std::exception& e) {
    world->fail(e.what());
    throw;
  }
  const auto part = std::make_shared<NcclWorld>();
  world->tell_failures_to(part);
  world->tell_departures_to(part);
  part->failures = &world->failures();
  part->departures = &world->departures();
  part->rank = rank;
  return NcclGroup::make(unique, size, rank, deadline, part, {world, &world->failures()});
}

// All ranks that this process was launched with: in the world that from_env() has joined, or else in one that shares a store alone.
inline std::shared_ptr<NcclGroup> launched_over_nccl(std::chrono::milliseconds deadline) {
  const LaunchEnvironment launched = read_environment();
  std::shared_ptr<ProcessWorld> world = LastWords::world();
  if (world == nullptr) {
    WorldPlace place = place_of(launched);
    SHARDWISE_REQUIRE(launched.size == 1 || !place.endpoint.empty(), text("shardwise: ", launched.no_endpoint));
    if (place.endpoint.empty()) place.endpoint.local = text("shardwise-alone-", getpid());
    place.deadline = deadline;
    place.store_only = true;
    world = ProcessWorld::join(std::move(place));
    static_cast<void>(LastWords(world));
  }
  return meet_over_nccl(world, launched.local_rank, deadline);
}

}  // namespace detail

}  // namespace shardwise
