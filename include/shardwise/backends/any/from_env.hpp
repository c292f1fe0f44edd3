// from_env: this process' place in the world that its launcher made. Layer: backends/any.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/any/communicator.hpp>
#if defined(SHARDWISE_HAS_GLOO)
#include <shardwise/backends/gloo/communicator.hpp>
#endif
#if defined(SHARDWISE_HAS_MPI)
#include <shardwise/backends/mpi/communicator.hpp>
#include <shardwise/backends/mpi/meeting.hpp>
#include <shardwise/backends/mpi/runtime.hpp>
#endif
#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/last_words.hpp>
#include <shardwise/backends/process/place.hpp>
#include <shardwise/backends/process/world.hpp>
#include <shardwise/backends/thread.hpp>

namespace shardwise {

namespace detail {

// A rank of a launcher's world of several processes.
inline bool was_launched(const LaunchEnvironment& environment) {
  return environment.size > 1 && environment.backend != "thread";
}

// Whether MPI connects the ranks: as SHARDWISE_BACKEND says, or else where MPI's launcher started them. Throws: Error where it
// would have to, and the program has none.
inline bool goes_over_mpi(const LaunchEnvironment& environment) {
#if defined(SHARDWISE_HAS_MPI)
  return environment.backend.empty() ? environment.by_mpi : environment.backend == "mpi";
#else
  SHARDWISE_REQUIRE(environment.backend != "mpi",
                    "shardwise: SHARDWISE_BACKEND is mpi, but this program has no MPI: link shardwise::mpi");
  return false;
#endif
}

// Its tensors would lie on the host.
inline void require_host_ranks(const LaunchEnvironment& environment) {
  SHARDWISE_REQUIRE(
      environment.backend != "nccl",
      "shardwise::from_env: SHARDWISE_BACKEND is nccl, but the tensors of an AnyCommunicator lie on the host: "
      "write `NcclCommunicator world;` (shardwise/backends/nccl.hpp, component nccl) for ranks that are GPUs, "
      "or set thread, gloo or mpi");
}

// `run` tells worlds apart that the same processes make one after the other.
inline std::shared_ptr<ProcessWorld> join_world_of(const LaunchEnvironment& environment, const std::string& run = {}) {
  WorldPlace place = place_of(environment);
  [[maybe_unused]] const bool over_mpi = goes_over_mpi(environment);
#if defined(SHARDWISE_HAS_MPI)
  if (over_mpi) {
    start_mpi(environment);
    // Rank 0 says where, unless the variables do.
    if (place.endpoint.empty()) place = meet_over_mpi(MPI_COMM_WORLD, environment, default_deadline());
    place.connect = &connect_over_mpi;
    place.after_failure = &MpiRuntime::expect_trouble;
  }
#endif
#if defined(SHARDWISE_HAS_GLOO)
  if (!over_mpi) place.connect = &connect_over_gloo;
#endif
  SHARDWISE_REQUIRE(!place.endpoint.empty(), text("shardwise: ", environment.no_endpoint));
  if (place.endpoint.is_local()) place.endpoint.local += run;
  place.store.run_id += run;
  return ProcessWorld::join(std::move(place));
}

// The ranks of a world of one: this thread.
inline ThreadCommunicator alone() { return {ThreadGroup::make(make_ref<ThreadWorld>(1), List<int>{0}), 0}; }

}  // namespace detail

/// The communicator of all ranks that this process was launched with (torchrun, mpirun, srun, scripts/launch.sh: docs/processes.md),
/// the same at every call; of this process alone where no launcher is seen, or with SHARDWISE_BACKEND=thread.
///
/// `NcclCommunicator world;` after it makes GPUs of the same ranks.
/// The process leaves the world at its normal end: it is told to the others where they still wait for it. An exception that
/// ends the process reaches them with its words.
/// Ranks: all, the first time. Throws: `Error` where the launcher's variables contradict each other or ask for GPUs, TimeoutError that names
/// who did not come.
inline AnyCommunicator from_env() {
  static const AnyCommunicator world = [] {
    const detail::LaunchEnvironment environment = detail::read_environment();
    detail::require_host_ranks(environment);
    if (!detail::was_launched(environment)) return AnyCommunicator(detail::alone());
    SHARDWISE_REQUIRE(
        detail::LastWords::world() == nullptr,
        "shardwise::from_env: this process has joined its world by NcclCommunicator already, without memory for "
        "tensors of the host: call from_env() before it");
    const std::shared_ptr<detail::ProcessWorld> joined = detail::join_world_of(environment);
    static const detail::LastWords last_words(joined);
    return AnyCommunicator(joined->communicator());
  }();
  return world;
}

}  // namespace shardwise
