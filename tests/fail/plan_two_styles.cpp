// Two rules that give one module two parameter-sharding styles.
// expect-error: shardwise::parallelize_module: \[Q2\] two rules give one module two parameter-sharding styles; keep one of them
// needs: eigen
#include <utility>

#include <shardwise/backends/thread.hpp>
#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

using namespace shardwise;
using test::Mlp;
using Mesh = decltype(init_device_mesh<"tp">(std::declval<ThreadCommunicator>(), {4}));

#if SHARDWISE_EXPECT_FAIL
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net*"_path = RowwiseParallel{});
#else
constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net1"_path = PrepareModuleInput{},
                                       "net[!1]"_path = RowwiseParallel{});
#endif

auto parallelized(const Mlp<>& model, const Mesh& mesh) { return parallelize_module<plan>(model, mesh); }
