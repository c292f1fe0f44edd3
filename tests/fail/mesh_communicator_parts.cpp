// A communicator of one's own that lacks what a mesh is made with.
// expect-error: shardwise::init_device_mesh: \[M7\] a communicator that lays out a mesh has memory_space, axis, with_axis, id, deadline, with_deadline and split, as the concept Communicator says
#include <chrono>
#include <cstdint>
#include <optional>

#include <shardwise/core.hpp>

using namespace shardwise;

struct Alone {
  static constexpr MemorySpace memory_space = MemorySpace::host;
  int rank() const { return 0; }
  int size() const { return 1; }
  std::uint64_t id() const { return 1; }
  Name axis() const { return Name(); }
  Alone with_axis(Name) const { return *this; }
  std::chrono::milliseconds deadline() const { return {}; }
  Alone with_deadline(std::chrono::milliseconds) const { return *this; }
#if SHARDWISE_EXPECT_FAIL
  Alone split(int, int) const { return *this; }
#else
  std::optional<Alone> split(int, int) const { return *this; }
#endif
};

auto mesh_of(const Alone& world) { return init_device_mesh<"tp">(world, {1}); }
