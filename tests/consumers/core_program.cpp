// What a user of the core writes: no third party is in reach here.
#include <shardwise/core.hpp>

#include <cstdint>
#include <cstdio>

using namespace shardwise;

int main() {
  bool good = true;
  run_ranks(3, [&](ThreadCommunicator world) {
    auto mesh = init_device_mesh<"tp">(world, {3});
    Tensor<float, 2> whole({5, 4});
    for (std::int64_t i = 0; i < whole.size(); ++i) whole.data()[i] = static_cast<float>(i);
    const auto rows = distribute_tensor<Shard<0>>(whole, mesh);
    const auto columns = redistribute<Shard<1>>(rows);
    const auto back = redistribute<Replicate>(columns).to_local();
    bool same = rows.local_shape()[0] == (world.rank() < 2 ? 2 : 1);
    for (std::int64_t i = 0; i < whole.size(); ++i) same = same && back.data()[i] == static_cast<float>(i);
    if (world.rank() == 0) good = same;
  });
  std::puts(good ? "core program: good" : "core program: bad");
  return good ? 0 : 1;
}
