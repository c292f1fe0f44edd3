// The ranks that train: threads of this process; or, where the library has a backend of processes and the program was launched as
// several, these.
#pragma once

#include <optional>

#include <shardwise/backends/thread.hpp>
#if defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
#include <shardwise/backends/any.hpp>
#endif

namespace names {

#if defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
using World = shardwise::AnyCommunicator;

// The world of a launched process; nothing where it was not launched.
inline std::optional<World> launched_world() {
  const World world = shardwise::from_env();
  return world.size() > 1 ? std::optional(world) : std::nullopt;
}
#else
using World = shardwise::ThreadCommunicator;

inline std::optional<World> launched_world() { return std::nullopt; }
#endif

// f(world) on every rank; on this process' own where it was launched as one of several.
template <class F>
void on_ranks(int threads, F f) {
  if (const std::optional<World> world = launched_world()) return f(*world);
  shardwise::run_ranks(threads, [&](shardwise::ThreadCommunicator world) { f(World(world)); });
}

}  // namespace names
