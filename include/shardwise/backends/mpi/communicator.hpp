// MpiCommunicator: the ranks of an MPI program. Layer: backends/mpi.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/mpi/meeting.hpp>
#include <shardwise/backends/mpi/runtime.hpp>
#include <shardwise/backends/mpi/transport.hpp>
#include <shardwise/backends/process/communicator.hpp>
#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/world.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/communicator.hpp>

namespace shardwise {

namespace detail {

// For a world of the launcher's that meets by its variables.
inline std::shared_ptr<Transport> connect_over_mpi(int, const std::vector<bool>&, KeyValueStore&,
                                                   std::chrono::milliseconds deadline) {
  return MpiTransport::on(MPI_COMM_WORLD, deadline);
}

inline ProcessCommunicator join_over_mpi(MPI_Comm comm, std::chrono::milliseconds deadline) {
  SHARDWISE_REQUIRE(comm != MPI_COMM_NULL, "shardwise: MpiCommunicator of MPI_COMM_NULL: only the ranks that have a "
                                           "communicator make one of it");
  const LaunchEnvironment launched = read_environment();
  SHARDWISE_REQUIRE(
      MpiRuntime::is_initialised() || launched.by_mpi,
      "shardwise: MpiCommunicator before MPI_Init_thread, in a program that no launcher of MPI's started: "
      "start it with mpirun, or initialise MPI first");
  MpiRuntime::start();
  int between = 0;
  MPI_Comm_test_inter(comm, &between);
  SHARDWISE_REQUIRE(between == 0, "shardwise: MpiCommunicator of an intercommunicator: merge it first "
                                  "(MPI_Intercomm_merge)");
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (launched.by_mpi && launched.size != size) start_mpi(launched);  // says why not
  WorldPlace place = meet_over_mpi(comm, launched, deadline);
  place.after_failure = &MpiRuntime::expect_trouble;
  place.transport = MpiTransport::on(comm, deadline);
  return ProcessWorld::join(std::move(place))->communicator();
}

}  // namespace detail

/// The ranks of a communicator that an MPI program has already; MPI_COMM_WORLD for instance. from_env() makes the same of all the
/// ranks that mpirun started, and initialises MPI where the program has not.
///
/// `comm` stays the program's: messages go through a duplicate of it, and MPI's tags are free. MPI_THREAD_FUNNELED is enough:
/// all communication is then on the thread that initialised MPI. All its handles go before MPI_Finalize. Ranks of one host
/// read each other's memory, as all of ProcessCommunicator's do; only the others need MPI for data. Reductions add in rank
/// order, never by MPI's own: the same bits as threads have.
class MpiCommunicator : public ProcessCommunicator {
 public:
  /// Ranks: all of `comm`. Throws: Error for a null or inter-communicator, without MPI, where this is not the thread that may call
  /// it, and where MPI's world is not the launcher's (another MPI's mpirun); TimeoutError where not all came.
  explicit MpiCommunicator(MPI_Comm comm, std::chrono::milliseconds deadline = detail::default_deadline())
      : ProcessCommunicator(detail::join_over_mpi(comm, detail::checked_deadline(deadline))) {}

  MpiCommunicator with_axis(Name axis) const { return MpiCommunicator(ProcessCommunicator::with_axis(axis)); }
  MpiCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    return MpiCommunicator(ProcessCommunicator::with_deadline(deadline));
  }
  std::optional<MpiCommunicator> split(int color, int key) const {
    std::optional<ProcessCommunicator> part = ProcessCommunicator::split(color, key);
    return part ? std::optional(MpiCommunicator(std::move(*part))) : std::nullopt;
  }

 private:
  explicit MpiCommunicator(ProcessCommunicator ranks) : ProcessCommunicator(std::move(ranks)) {}
};

static_assert(DirectAccessCommunicator<MpiCommunicator> && ExchangesPacked<MpiCommunicator>);

}  // namespace shardwise
