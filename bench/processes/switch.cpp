// The ways of a collective over messages against each other, by size: where MessageSwitch (comm/message_collectives.hpp) lets one take
// over from another. Over Gloo, whatever the ranks share. Under a launcher, once for each number of ranks. Argument: pairs (9).
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/any.hpp>

#include "../support.hpp"

using namespace shardwise;
using detail::BlockOffsets;
using detail::MessageChannel;
using detail::MessageSwitch;

namespace {

class Channel final : public MessageChannel {
 public:
  Channel(detail::Transport& transport, int rank, int size) : transport_(transport), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void step(std::span<const detail::Outgoing> out, std::span<const detail::Incoming> in, detail::PackFunction pack,
            detail::UnpackFunction unpack) override {
    transport_.exchange({}, out, in, detail::Transport::Clock::now() + std::chrono::minutes(1), pack, unpack);
  }

 private:
  detail::Transport& transport_;
  int rank_, size_;
};

struct Way {
  const char* name;
  std::function<void()> run;
};

// Medians of batches in turns; all ranks run the same number, rank 0's clock counts. A barrier ends each repetition: a root must not
// run ahead.
void compare(Channel& channel, const AnyCommunicator& world, const char* what, std::size_t bytes, int pairs,
             const std::vector<Way>& ways, std::size_t chosen) {
  std::vector<std::vector<double>> times(ways.size());
  double once = 1e9;
  for (int i = 0; i < 3; ++i)
    for (const Way& way : ways) {
      detail::barrier_messages(channel);
      once = std::min(once, bench::seconds([&] {
                        way.run();
                        detail::barrier_messages(channel);
                      }));
    }
  std::int64_t batch = std::clamp<std::int64_t>(static_cast<std::int64_t>(1e-2 / once), 2, 200);
  world.broadcast<std::int64_t>({&batch, 1}, 0);
  for (int i = 0; i < pairs; ++i)
    for (std::size_t w = 0; w < ways.size(); ++w) {
      detail::barrier_messages(channel);
      times[w].push_back(bench::seconds([&] {
                           for (std::int64_t k = 0; k < batch; ++k) {
                             ways[w].run();
                             detail::barrier_messages(channel);
                           }
                         }) /
                         static_cast<double>(batch));
    }
  if (channel.rank() != 0) return;
  std::printf("%6d %-12s %10zu", channel.size(), what, bytes);
  std::size_t best = 0;
  for (std::size_t w = 0; w < ways.size(); ++w) {
    if (bench::quantile(times[w], 0.5) < bench::quantile(times[best], 0.5)) best = w;
    std::printf("  %-8s %10.1f us", ways[w].name, bench::quantile(times[w], 0.5) * 1e6);
  }
  std::printf("  best %-8s chosen %s\n", ways[best].name, ways[chosen].name);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int pairs = argc > 1 ? std::atoi(argv[1]) : 9;
  const AnyCommunicator world = from_env();
  if (world.size() < 2 || pairs < 1) {
    std::fprintf(stderr, "usage: scripts/launch.sh -n RANKS %s [pairs >= 1], two ranks at least\n", argv[0]);
    return 2;
  }
  bench::pin_to_core(world.rank());
  // Connections of its own: those of the world are for its own collectives.
  const auto joined = detail::join_world_of(detail::read_environment(), "-switch");
  detail::GlooTransport transport(world.rank(), world.size(), detail::gloo_address("127.0.0.1"));
  transport.connect(joined->store(), "switch", std::chrono::minutes(1));
  Channel channel(transport, world.rank(), world.size());
  const int size = world.size();
  const auto ranks = static_cast<std::size_t>(size);
  const auto& kernels = detail::reduce_kernels<float>;

  constexpr std::size_t most = std::size_t{4} << 20;
  std::vector<std::byte> memory(most), result(most), part(most);
  std::byte* const data = memory.data();
  if (world.rank() == 0)
    std::printf("#ranks what           bytes in all; us: median of %d batches in turns; chosen: by MessageSwitch\n",
                pairs);
  for (std::size_t bytes = 1024; bytes <= most; bytes *= 4) {
    const BlockOffsets at = BlockOffsets::parts(size, static_cast<std::int64_t>(bytes / 64), 64);
    const std::size_t gather = size <= MessageSwitch::direct_ranks ? 0 : bytes <= MessageSwitch::bruck_bytes ? 1 : 2;
    compare(channel, world, "all_gather", bytes, pairs,
            {{"direct", [&] { detail::all_gather_direct(channel, data, at); }},
             {"bruck", [&] { detail::all_gather_bruck(channel, data, at); }},
             {"ring", [&] { detail::all_gather_ring(channel, data, at); }}},
            gather);
  }
  for (std::size_t bytes = 1024; bytes * ranks <= most; bytes *= 4) {  // of each input
    const std::size_t elements = bytes / sizeof(float);
    compare(channel, world, "all_reduce", bytes * ranks, pairs,
            {{"one step",
              [&] {
                detail::all_reduce_in_one_step(channel, kernels, data, result.data(), elements * sizeof(float),
                                               ReduceOp::sum);
              }},
             {"two steps",
              [&] {
                detail::all_reduce_in_two_steps(channel, kernels, data, result.data(), elements * sizeof(float),
                                                ReduceOp::sum);
              }}},
            bytes * ranks <= MessageSwitch::one_step_reduce_bytes ? 0 : 1);
  }
  for (std::size_t bytes = 1024; bytes <= most; bytes *= 4)
    compare(channel, world, "broadcast", bytes, pairs,
            {{"tree", [&] { detail::broadcast_tree(channel, data, bytes, 0); }},
             {"scatter", [&] { detail::broadcast_scattered(channel, data, bytes, 0); }}},
            size < MessageSwitch::scatter_broadcast_ranks || bytes < MessageSwitch::scatter_broadcast_bytes ? 0 : 1);
  for (std::size_t bytes = 1024; bytes <= most; bytes *= 4) {
    const BlockOffsets at = BlockOffsets::parts(size, static_cast<std::int64_t>(bytes / 64), 64);
    compare(channel, world, "scatter", bytes, pairs,
            {{"direct", [&] { detail::scatter_direct(channel, data, part.data(), at, 0); }},
             {"tree", [&] { detail::scatter_tree(channel, data, part.data(), at, 0); }}},
            size >= MessageSwitch::tree_scatter_ranks && bytes <= MessageSwitch::tree_scatter_bytes ? 1 : 0);
  }
  return 0;
}
