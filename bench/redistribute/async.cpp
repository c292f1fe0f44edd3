// Moves in two halves, 4 ranks as threads, or as the processes of a launcher: what a late rank costs the others, with
// redistribute_async and with redistribute, and what the two halves cost where nobody is late. Every result is checked. Arguments:
// size (2048), pairs (15).
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include <shardwise/backends/any.hpp>
#include <shardwise/core.hpp>
#include <shardwise/redistribute/async.hpp>

#include "../support.hpp"

using namespace shardwise;

namespace {

constexpr int ranks = 4;
constexpr int late = ranks - 1;
constexpr auto delay = std::chrono::milliseconds(100);

using Mesh = DeviceMesh<AnyCommunicator, "tp">;
template <class... P>
using Matrix = DTensor<float, 2, Mesh, P...>;

float value(std::int64_t row, std::int64_t column) { return static_cast<float>((row * 31 + column * 17) % 1021); }

template <class X>
X filled(const Mesh& mesh, std::int64_t size, float factor) {
  X x = detail::make_tensor<float, 2, typename X::layout_type>(detail::Extents(Shape<2>{size, size}), mesh);
  const auto offset = x.local_offset();
  const auto shape = x.local_shape();
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j)
      x.data()[i * shape[1] + j] = factor * value(offset[0] + i, offset[1] + j);
  return x;
}

template <class X>
std::int64_t wrong(const X& x, float factor) {
  const auto offset = x.local_offset();
  const auto shape = x.local_shape();
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j)
      if (x.data()[i * shape[1] + j] != factor * value(offset[0] + i, offset[1] + j)) ++n;
  return n;
}

std::atomic<std::int64_t> wrong_elements{0};  // of this process' ranks

bool launched() {
  static const bool is = detail::was_launched(detail::read_environment());
  return is;
}
bool prints() { return !launched() || from_env().rank() == 0; }

// f(world) on each of the ranks: threads of this process, or this process.
template <class F>
void on_ranks(F&& f) {
  if (launched())
    f(from_env());
  else
    run_ranks(ranks, [&](ThreadCommunicator world) { f(AnyCommunicator(world)); });
}

// The computation that the move is to hide behind: some milliseconds of one core, no memory.
void compute() {
  float x = static_cast<float>(std::clock() % 7);  // not known to the compiler
  for (int i = 0; i < 2000000; ++i) x = x * 0.999f + 0.001f;
  bench::keep(x);
}

// How long an early rank takes for `start`, the computation and no more, against the computation alone. Where the late rank
// comes late to its start, and where it starts in time but comes late to its wait(), in which case the early ranks also
// take their results.
template <class Start>
bench::Pairs with_late_rank(std::int64_t size, int pairs, bool late_to_wait, Start start) {
  bench::Pairs result;
  on_ranks([&](const AnyCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {ranks});
    const auto x = filled<Matrix<Shard<0>>>(mesh, size, 1);
    for (int i = -1; i < pairs; ++i) {
      world.barrier();
      if (world.rank() == late && !late_to_wait) std::this_thread::sleep_for(delay);
      double subject = 0;
      {
        decltype(start(x)) y;
        subject = bench::seconds([&] {
          y = start(x);
          if (world.rank() == late) {
            if (late_to_wait) std::this_thread::sleep_for(delay);
          } else {
            compute();
            if (late_to_wait) y.wait();
          }
        });
        wrong_elements += wrong(y.wait(), 1);
      }
      world.barrier();
      const double alone = bench::seconds([&] {
        if (world.rank() != late) compute();
      });
      if (i >= 0 && world.rank() == 0) result.add(subject, alone);
    }
  });
  return result;
}

// The blocking move behind the same interface.
template <class Y>
struct Now {
  Y y;
  Y wait() const { return y; }
};

// start and wait() against redistribute, nobody late.
template <class Target, class X>
bench::Pairs both_halves(std::int64_t size, int pairs, int repeat) {
  bench::Pairs result;
  on_ranks([&](const AnyCommunicator& world) {
    bench::pin_to_core(world.rank());
    const auto mesh = init_device_mesh<"tp">(world, {ranks});
    const X x = filled<X>(mesh, size, X::placements[0].is_partial() ? static_cast<float>(world.rank() + 1) : 1.0f);
    const float factor = X::placements[0].is_partial() ? static_cast<float>(ranks * (ranks + 1) / 2) : 1.0f;
    for (int i = -2; i < pairs; ++i) {
      world.barrier();
      const double halves = bench::seconds([&] {
        for (int k = 0; k < repeat; ++k) {
          const auto y = redistribute_async<Target>(x).wait();
          bench::keep(y.data());
        }
        world.barrier();
      });
      const double whole = bench::seconds([&] {
        for (int k = 0; k < repeat; ++k) {
          const auto y = redistribute<Target>(x);
          bench::keep(y.data());
        }
        world.barrier();
      });
      if (i >= 0 && world.rank() == 0) result.add(halves, whole);
    }
    wrong_elements += wrong(redistribute_async<Target>(x).wait(), factor);
  });
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t size = argc > 1 ? std::atoll(argv[1]) : 2048;
  const int pairs = argc > 2 ? std::atoi(argv[2]) : 15;
  if (size < 1 || pairs < 1) {
    std::fprintf(stderr, "usage: %s [size >= 1] [pairs >= 1]\n", argv[0]);
    return 1;
  }
  if (launched() && from_env().size() != ranks) {
    std::fprintf(stderr, "%s: it takes %d ranks, not %d\n", argv[0], ranks, from_env().size());
    return 1;
  }
  const char* const kind = !launched()           ? "threads"
                           : from_env().direct() ? "processes that share memory"
                                                 : "processes that send messages";
  const auto heading = [](const char* title) {
    if (prints()) bench::print_heading(title);
  };
  const auto print = [](const char* what, const bench::Pairs& figures, double unit = 1e-3, const char* name = "ms") {
    if (prints()) bench::print_ratio(what, figures, 0, unit, name);
  };
  if (prints())
    std::printf("%lld x %lld float, Shard(0) -> Shard(1), %d ranks as %s, one of them %lld ms late\n",
                static_cast<long long>(size), static_cast<long long>(size), ranks, kind,
                static_cast<long long>(std::chrono::milliseconds(delay).count()));
  heading("An early rank until its computation is done, against the computation alone");
  print("redistribute_async, a rank starts late",
        with_late_rank(size, pairs, false, [](const auto& x) { return redistribute_async<Shard<1>>(x); }));
  print("redistribute, a rank comes late", with_late_rank(size, pairs, false, [](const auto& x) {
          return Now<Matrix<Shard<1>>>{redistribute<Shard<1>>(x)};
        }));
  heading("The same and its result too, where the rank starts in time and waits late");
  print("redistribute_async, a rank waits late",
        with_late_rank(size, pairs, true, [](const auto& x) { return redistribute_async<Shard<1>>(x); }));
  heading("Both halves, nobody late, against redistribute");
  print("Shard(0) -> Shard(1)", both_halves<Shard<1>, Matrix<Shard<0>>>(size, pairs, 1));
  print("Shard(0) -> Replicate", both_halves<Replicate, Matrix<Shard<0>>>(size, pairs, 1));
  print("Partial -> Shard(0)", both_halves<Shard<0>, Matrix<Partial<>>>(size, pairs, 1));
  print("Partial -> Replicate (not shared in two halves)", both_halves<Replicate, Matrix<Partial<>>>(size, pairs, 1));
  print("32 x 32, Shard(0) -> Shard(1)", both_halves<Shard<1>, Matrix<Shard<0>>>(32, pairs, 64), 64e-6, "us");
  std::int64_t wrong = wrong_elements;
  if (launched()) {
    const std::int64_t mine = wrong;
    from_env().all_reduce<std::int64_t>({&mine, 1}, {&wrong, 1}, ReduceOp::sum);
  }
  if (prints()) std::printf("\nwrong results: %lld\n", static_cast<long long>(wrong));
  return wrong == 0 ? 0 : 1;
}
