// The ranks that train: threads of this process; or, where the library has a backend of processes and the program was launched as
// several, these; or, with NAMES_ON_GPUS, a GPU for each launched process. What a rank computes on is brought to it and back.
#pragma once

#include <memory>
#include <optional>

#include <shardwise/backends/thread.hpp>
#if defined(NAMES_ON_GPUS)
#include <shardwise/backends/nccl.hpp>
#include <shardwise/device/module.hpp>
#include <shardwise/device/redistribute.hpp>
#elif defined(SHARDWISE_HAS_GLOO) || defined(SHARDWISE_HAS_MPI)
#include <shardwise/backends/any.hpp>
#endif

namespace names {

#if defined(NAMES_ON_GPUS)
using World = shardwise::NcclCommunicator;

// The world of a launched process, also alone; the same as long as somebody holds it.
inline std::shared_ptr<const World> launched_world() {
  static std::weak_ptr<const World> known;
  std::shared_ptr<const World> world = known.lock();
  if (world == nullptr) known = world = std::make_shared<const World>();
  return world;
}

template <class X>
auto to_rank(const X& x) {
  return shardwise::to_device(x);
}
template <class X>
auto from_rank(const X& x) {
  return shardwise::to_host(x);
}

// f(world) on this process' rank.
template <class F>
void on_ranks(int, F f) {
  f(*launched_world());
}
#else
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

template <class X>
const X& to_rank(const X& x) {
  return x;
}
template <class X>
const X& from_rank(const X& x) {
  return x;
}

// f(world) on every rank; on this process' own where it was launched as one of several.
template <class F>
void on_ranks(int threads, F f) {
  if (const std::optional<World> world = launched_world()) return f(*world);
  shardwise::run_ranks(threads, [&](shardwise::ThreadCommunicator world) { f(World(world)); });
}
#endif

}  // namespace names
