// How long processes take from their start to the end of their first collective. SHARDWISE_BENCH_START holds when the launcher was
// started, in nanoseconds since 1970: bench.sh.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <shardwise/backends/any.hpp>

namespace {

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

int main() {
  const double main_began = now();
  const auto world = shardwise::from_env();
  const double joined = now();
  std::int64_t ranks = 0;
  const std::int64_t one = 1;
  world.all_reduce<std::int64_t>({&one, 1}, {&ranks, 1}, shardwise::ReduceOp::sum);
  const double reduced = now();
  if (ranks != world.size()) return 1;
  const char* const launched = std::getenv("SHARDWISE_BENCH_START");
  const double start = launched != nullptr ? std::atof(launched) * 1e-9 : main_began;
  // The slowest of each, on the clock that all processes of a host have in common.
  const double times[3] = {main_began - start, joined - start, reduced - start};
  double slowest[3];
  world.all_reduce<double>(times, slowest, shardwise::ReduceOp::max);
  if (world.rank() == 0)
    std::printf("%3d ranks, %-32s %6.3f s: the last process began after %.3f s, all were joined after %.3f s\n",
                world.size(), world.direct() ? "shared memory" : "messages", slowest[2], slowest[0], slowest[1]);
  return 0;
}
