// GlooCommunicator: the communicator of launched processes, by name.
#include <doctest/doctest.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/gloo.hpp>
#include <shardwise/mesh/device_mesh.hpp>

#include "process/forked.hpp"

using namespace shardwise;
using namespace test;

static_assert(Communicator<GlooCommunicator> &&
              std::is_same_v<decltype(std::declval<GlooCommunicator>().split(0, 0)), std::optional<GlooCommunicator>>);

namespace {

// Of each rank the last words; all were told by a launcher that there are n, and whether memory is shared.
std::vector<std::string> launched(int n, const char* shares, void (*f)(const GlooCommunicator&)) {
  const std::string run = std::to_string(getpid()) + "-" + std::to_string(n) + shares;
  ForkedRanks ranks(n, [=](int r) {
    for (const char* name : {"SHARDWISE_RANK", "SHARDWISE_LOCAL_RANK"}) setenv(name, std::to_string(r).c_str(), 1);
    for (const char* name : {"SHARDWISE_SIZE", "SHARDWISE_LOCAL_SIZE"}) setenv(name, std::to_string(n).c_str(), 1);
    setenv("SHARDWISE_RUN_ID", ("launched-" + run).c_str(), 1);
    setenv("SHARDWISE_SHARED_MEMORY", shares, 1);
    const GlooCommunicator world;
    f(world);
  });
  return ranks.last_words();
}

}  // namespace

TEST_CASE("GlooCommunicator: the launched processes, and meshes of them") {
  for (const char* shares : {"1", "0"}) {
    CAPTURE(shares);
    const std::vector<std::string> words = launched(4, shares, [](const GlooCommunicator& world) {
      expect(world.size() == 4, "four ranks");
      expect(world.direct() == (std::string(std::getenv("SHARDWISE_SHARED_MEMORY")) == "1"),
             "memory is shared as asked");
      const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
      std::vector<int> in{world.rank()}, out(1);
      mesh.communicator<"tp">().all_reduce<int>(in, out, ReduceOp::sum);
      expect(out[0] == (world.rank() < 2 ? 1 : 5), "the sum of a row of the mesh");
    });
    for (const std::string& word : words) CHECK(word == "");
  }
}

TEST_CASE(
    "GlooCommunicator: one process without a launcher is a world of one; ranks that know no place to meet are told") {
  ForkedRanks alone(1, [](int) {
    unsetenv("SHARDWISE_RANK");
    const GlooCommunicator world;
    std::vector<int> in{7}, out(1);
    world.all_reduce<int>(in, out, ReduceOp::sum);
    expect(world.size() == 1 && world.rank() == 0 && out == in, "alone");
  });
  CHECK(alone.last_words().front() == "");

  ForkedRanks lost(1, [](int) {
    setenv("SHARDWISE_RANK", "0", 1);
    setenv("SHARDWISE_SIZE", "2", 1);
    const GlooCommunicator world;
  });
  CHECK(lost.last_words().front().find("set SHARDWISE_ADDRESS") != std::string::npos);
}
