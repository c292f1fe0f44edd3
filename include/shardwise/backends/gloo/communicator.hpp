// GlooCommunicator: the launched processes, over Gloo where they share no memory. Layer: backends/gloo.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/gloo/device.hpp>
#include <shardwise/backends/gloo/transport.hpp>
#include <shardwise/backends/process/communicator.hpp>
#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/place.hpp>
#include <shardwise/backends/process/world.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/text.hpp>
#include <shardwise/comm/communicator.hpp>

namespace shardwise {

namespace detail {

inline std::shared_ptr<Transport> connect_over_gloo(int rank, const std::vector<bool>& reaches, KeyValueStore& store,
                                                    std::chrono::milliseconds deadline) {
  auto transport =
      std::make_shared<GlooTransport>(rank, static_cast<int>(reaches.size()), gloo_address("127.0.0.1"), reaches);
  transport->connect(store, "world", deadline);
  return transport;
}

inline ProcessCommunicator join_over_gloo(std::chrono::milliseconds deadline) {
  const LaunchEnvironment launched = read_environment();
  WorldPlace place = place_of(launched);
  SHARDWISE_REQUIRE(launched.size == 1 || !place.endpoint.empty(), text("shardwise: ", launched.no_endpoint));
  if (place.endpoint.empty()) place.endpoint.local = text("shardwise-alone-", getpid());
  place.deadline = deadline;
  place.connect = &connect_over_gloo;
  return ProcessWorld::join(std::move(place))->communicator();
}

}  // namespace detail

/// All ranks that this process was launched with (torchrun, mpirun, srun, scripts/launch.sh), whatever SHARDWISE_BACKEND says: a
/// program that knows at compile time that its ranks are processes spares itself AnyCommunicator's branches. Ranks of one host read each
/// other's memory; the others send messages over Gloo. Reductions add in rank order: the same bits as threads have.
///
/// Made once in a process, instead of from_env(); copies and parts are its handles.
class GlooCommunicator : public ProcessCommunicator {
 public:
  /// Ranks: all. Throws: `Error` where the launcher's variables contradict each other or say not where to meet, TimeoutError that
  /// names who did not come within the deadline, which the communicator then has as its own.
  explicit GlooCommunicator(std::chrono::milliseconds deadline = detail::default_deadline())
      : ProcessCommunicator(detail::join_over_gloo(detail::checked_deadline(deadline))) {}

  GlooCommunicator with_axis(Name axis) const { return GlooCommunicator(ProcessCommunicator::with_axis(axis)); }
  GlooCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    return GlooCommunicator(ProcessCommunicator::with_deadline(deadline));
  }
  std::optional<GlooCommunicator> split(int color, int key) const {
    std::optional<ProcessCommunicator> part = ProcessCommunicator::split(color, key);
    return part ? std::optional(GlooCommunicator(std::move(*part))) : std::nullopt;
  }

 private:
  explicit GlooCommunicator(ProcessCommunicator ranks) : ProcessCommunicator(std::move(ranks)) {}
};

static_assert(DirectAccessCommunicator<GlooCommunicator> && ExchangesPacked<GlooCommunicator>);

}  // namespace shardwise
