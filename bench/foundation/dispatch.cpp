// What a distributed tensor costs where nothing moves: an addition of 4 x 4 against the same on local tensors, and a
// redistribute to the placement that it has. With an argument `same` or `copy`: only a loop of such redistributes, or
// of copies of the handle, for a counter of instructions.
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <shardwise/shardwise.hpp>

#include "../support.hpp"

using namespace shardwise;

constexpr int rounds = 20000;

int main(int argc, char** argv) {
  const char* only = argc > 1 ? argv[1] : "";
  run_ranks(1, [&](ThreadCommunicator world) {
    auto mesh = init_device_mesh<"tp">(world, {1});
    const auto a = rand<float>({4, 4});
    const auto b = rand<float>({4, 4});
    const auto da = from_local<Shard<0>>(a, mesh);
    const auto db = from_local<Shard<0>>(b, mesh);
    const auto same = [&] {
      for (int i = 0; i < rounds; ++i) bench::keep(redistribute<Shard<0>>(da));
    };
    const auto copy = [&] {
      for (int i = 0; i < rounds; ++i) {
        auto y = da;
        bench::keep(y);
      }
    };
    if (std::strcmp(only, "same") == 0) return same();
    if (std::strcmp(only, "copy") == 0) return copy();

    bench::print_heading("Where nothing moves");
    bench::Pairs add;
    bench::Pairs move;
    for (int i = -2; i < 31; ++i) {
      const double local = bench::seconds([&] {
        for (int k = 0; k < rounds; ++k) bench::keep(a + b);
      });
      const double distributed = bench::seconds([&] {
        for (int k = 0; k < rounds; ++k) bench::keep(da + db);
      });
      const double copied = bench::seconds(copy);
      const double moved = bench::seconds(same);
      if (i < 0) continue;
      add.add(distributed / rounds, local / rounds);
      move.add(moved / rounds, copied / rounds);
    }
    char figure[32];
    std::snprintf(figure, sizeof figure, "%+.0f ns", add.extra() * 1e9);
    bench::print_ratio("4 x 4 addition, DTensor against its local tensor", add, 0, 1e-9, "ns");
    bench::print_row("4 x 4 addition, DTensor less its local tensor", figure, "", "+100 ns", "");
    bench::print_ratio("redistribute to the same placement, against a copied handle", move, 0, 1e-9, "ns");
  });
  return 0;
}
