// Transitions between ranks that are threads, against the same ranks each copying max(local input, local output) bytes
// with memcpy. Every result is checked element by element. Arguments: size (4096), pairs (15).
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <shardwise/core.hpp>

#include "../support.hpp"

using namespace shardwise;

constexpr int ranks = 4;

// Whole numbers, so that sums of four are exact; rank r holds r times as much of a term.
float value(std::int64_t row, std::int64_t column) { return static_cast<float>((row * 31 + column * 17) % 1021); }

template <class X>
void fill(X& x, int rank, bool is_term) {
  const auto offset = x.local_offset();
  const auto shape = x.local_shape();
  const float factor = is_term ? static_cast<float>(rank + 1) : 1.0f;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j)
      x.data()[i * shape[1] + j] = factor * value(offset[0] + i, offset[1] + j);
}

template <class X>
std::int64_t wrong(const X& x, bool was_term) {
  const auto offset = x.local_offset();
  const auto shape = x.local_shape();
  const float factor = was_term ? static_cast<float>(ranks * (ranks + 1) / 2) : 1.0f;
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j)
      if (x.data()[i * shape[1] + j] != factor * value(offset[0] + i, offset[1] + j)) ++n;
  return n;
}

template <class X, class... P>
using Placed = DTensor<float, 2, typename X::type, P...>;
template <class T>
struct Type {
  using type = T;
};

struct Result {
  std::int64_t wrong = 0;
  bench::Pairs pairs;
  bench::Pairs processor;  // processor time of all ranks: what the other users of a shared machine disturb less
};

template <class In, class Out, class Mesh>
void run(Result& result, const ThreadCommunicator& world, const Mesh& mesh, std::int64_t size, int pairs,
         std::byte* from, std::byte* to) {
  const detail::Extents global(Shape<2>{size, size});
  In x = detail::make_tensor<float, 2, typename In::layout_type>(global, mesh);
  Out y = detail::make_tensor<float, 2, typename Out::layout_type>(global, mesh);
  bool is_term = false;
  for (const auto& p : In::placements) is_term = is_term || p.is_partial();
  fill(x, world.rank(), is_term);
  std::memset(y.data(), 0, y.bytes());
  const std::size_t bytes = std::max(x.bytes(), y.bytes());
  for (int i = -2; i < pairs; ++i) {
    world.barrier();
    const std::clock_t start = std::clock();
    const double moved = bench::seconds([&] {
      redistribute_into(x, y);
      world.barrier();
    });
    const std::clock_t between = std::clock();
    const double copied = bench::seconds([&] {
      std::memcpy(to, from, bytes);
      bench::keep(*to);
      world.barrier();
    });
    const std::clock_t end = std::clock();
    if (i < 0 || world.rank() != 0) continue;
    result.pairs.add(moved, copied);
    result.processor.add(static_cast<double>(between - start), static_cast<double>(end - between));
  }
  Tensor<std::int64_t, 1> bad({1});
  bad.data()[0] = wrong(y, is_term);
  world.all_reduce<std::int64_t>({bad.data(), 1}, {bad.data(), 1}, ReduceOp::sum);
  if (world.rank() == 0) result.wrong = bad.data()[0];
}

int main(int argc, char** argv) {
  const std::int64_t size = argc > 1 ? std::atoll(argv[1]) : 4096;
  const int pairs = argc > 2 ? std::atoi(argv[2]) : 15;
  char title[128];
  std::snprintf(title, sizeof title, "redistribute of %lld x %lld float, %d ranks as threads, against memcpy",
                static_cast<long long>(size), static_cast<long long>(size), ranks);
  bench::print_heading(title);
  std::int64_t wrong_results = 0;
  run_ranks(ranks, [&](ThreadCommunicator world) {
    auto line = init_device_mesh<"x">(world, {ranks});
    auto grid = init_device_mesh<"y", "x">(world, {2, ranks / 2});
    using Line = Type<decltype(line)>;
    using Grid = Type<decltype(grid)>;
    const auto bytes = static_cast<std::size_t>(size * size) * sizeof(float);
    const detail::Buffer from(bytes), to(bytes);
    std::memset(from.data(), 1, bytes);
    std::memset(to.data(), 1, bytes);
    const auto row = [&]<class In, class Out>(const char* what, double limit, Type<In>, Type<Out>, const auto& mesh) {
      Result result;
      run<In, Out>(result, world, mesh, size, pairs, from.data(), to.data());
      if (world.rank() != 0) return;
      bench::print_ratio(what, result.pairs, limit, 1e-3, "ms");
      std::printf("  by processor time %.2fx (%.2f to %.2f)\n", result.processor.ratio(),
                  result.processor.ratio_at(0.25), result.processor.ratio_at(0.75));
      if (result.wrong != 0) std::printf("  WRONG: %lld elements\n", static_cast<long long>(result.wrong));
      wrong_results += result.wrong != 0;
    };
    using R = Replicate;
    using P = Partial<>;
    row("Shard(0) -> Shard(1)", 1.2, Type<Placed<Line, Shard<0>>>{}, Type<Placed<Line, Shard<1>>>{}, line);
    row("Shard(0) -> Replicate", 1.2, Type<Placed<Line, Shard<0>>>{}, Type<Placed<Line, R>>{}, line);
    row("Partial -> Replicate", 1.2, Type<Placed<Line, P>>{}, Type<Placed<Line, R>>{}, line);
    row("Partial -> Shard(0)", 0.7, Type<Placed<Line, P>>{}, Type<Placed<Line, Shard<0>>>{}, line);
    row("Partial -> Shard(1)", 0.7, Type<Placed<Line, P>>{}, Type<Placed<Line, Shard<1>>>{}, line);
    row("(Shard(0), Shard(1)) -> (Shard(1), Shard(0)) on 2 x 2", 1.2, Type<Placed<Grid, Shard<0>, Shard<1>>>{},
        Type<Placed<Grid, Shard<1>, Shard<0>>>{}, grid);
  });
  std::printf("wrong results: %lld\n", static_cast<long long>(wrong_results));
  return wrong_results == 0 ? 0 : 1;
}
