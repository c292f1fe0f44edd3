// One training step (zero_grad, forward, backward, SGD) of a small MLP, tensor-parallel against one device of the same
// library; with the argument `large` the 1024-4096-1024 one, where the matrix products decide; with `serve` a step of that one
// whenever standard input says `one` (device) or `two` (ranks), answered with its milliseconds, for peers/mlp_pairs.py.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>

#include <shardwise/shardwise.hpp>

#include "../support.hpp"

using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
  auto operator()(const auto& x) const { return net2(relu(net1(x))); }
};

constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});

template <class Model>
void step(const Model& model, optim::SGD& sgd, const Tensor<float, 2>& x) {
  sgd.zero_grad();
  backward(sum(model(x)));
  sgd.step();
}

struct Case {
  std::int64_t width, hidden, batch;
  int pairs, steps;
};

// The one-device step runs on rank 0 while the others wait, in turns with the parallel one.
bench::Pairs measure(int ranks, const Case& c) {
  bench::Pairs pairs;
  run_ranks(ranks, [&](ThreadCommunicator world) {
    auto mesh = init_device_mesh<"tp">(world, {ranks});
    manual_seed(5);
    Mlp<> dense{nn::linear(c.width, c.hidden), nn::linear(c.hidden, c.width)};
    auto sharded = parallelize_module<plan>(dense, mesh);
    const auto x = rand<float>({c.batch, c.width});
    optim::SGD dense_sgd(parameters(dense), {.lr = 1e-4});
    optim::SGD sharded_sgd(parameters(sharded), {.lr = 1e-4});
    for (int i = -2; i < c.pairs; ++i) {  // two pairs to warm up
      double alone = 0;
      world.barrier();
      if (world.rank() == 0)
        alone = bench::seconds([&] {
          for (int s = 0; s < c.steps; ++s) step(dense, dense_sgd, x);
        });
      world.barrier();
      const double together = bench::seconds([&] {
        for (int s = 0; s < c.steps; ++s) step(sharded, sharded_sgd, x);
        world.barrier();
      });
      if (i >= 0 && world.rank() == 0) pairs.add(together / c.steps, alone / c.steps);
    }
  });
  return pairs;
}

void serve(const Case& c) {
  run_ranks(2, [&](ThreadCommunicator world) {
    auto mesh = init_device_mesh<"tp">(world, {2});
    manual_seed(5);
    Mlp<> dense{nn::linear(c.width, c.hidden), nn::linear(c.hidden, c.width)};
    auto sharded = parallelize_module<plan>(dense, mesh);
    const auto x = rand<float>({c.batch, c.width});
    optim::SGD dense_sgd(parameters(dense), {.lr = 1e-4});
    optim::SGD sharded_sgd(parameters(sharded), {.lr = 1e-4});
    char line[16];
    while (true) {
      // 0: end, 1: one device, 2: both ranks. Rank 0 reads it, the others hear of it.
      std::int32_t kind = 0;
      if (world.rank() == 0 && std::fgets(line, sizeof line, stdin)) kind = std::strncmp(line, "two", 3) == 0 ? 2 : 1;
      world.broadcast(std::span(&kind, 1), 0);
      if (kind == 0) return;
      if (kind == 1 && world.rank() != 0) continue;
      const double took = bench::seconds([&] {
        if (kind == 1) return step(dense, dense_sgd, x);
        step(sharded, sharded_sgd, x);
        world.barrier();
      });
      if (world.rank() != 0) continue;
      std::printf("%.6f\n", took * 1e3);
      std::fflush(stdout);
    }
  });
}

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "serve") == 0) {
    serve({1024, 4096, 256, 0, 0});
    return 0;
  }
  const bool large = argc > 1 && std::strcmp(argv[1], "large") == 0;
  if (large) {
#if defined(SHARDWISE_HAS_BLAS)
    bench::print_heading("One training step, MLP 1024-4096-1024, batch 256 (products through a BLAS)");
#else
    bench::print_heading("One training step, MLP 1024-4096-1024, batch 256 (products through Eigen)");
#endif
    const bench::Pairs pairs = measure(2, {1024, 4096, 256, 15, 1});
    bench::print_ratio("2 ranks, against one device and one thread", pairs, 0, 1e-3, "ms");
    return 0;
  }
  bench::print_heading("One training step, MLP 16-16-16, batch 12");
  const bench::Pairs two = measure(2, {16, 16, 12, 31, 200});
  bench::print_ratio("2 ranks, against one device", two, 3, 1e-6, "us");
  char time[32];
  std::snprintf(time, sizeof time, "%.1f us", two.subject() * 1e6);
  bench::print_row("2 ranks, the time itself", time, "", "50 us", "");
  bench::print_ratio("4 ranks, against one device", measure(4, {16, 16, 12, 15, 50}), 0, 1e-6, "us");
  return 0;
}
