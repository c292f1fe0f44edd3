// Several axes at once, over random placements, sizes and meshes: one exchange, against a brute-force oracle.
#include <doctest/doctest.h>

#include <complex>
#include <cstdlib>

#include <shardwise/backends/thread.hpp>
#include <shardwise/redistribute/redistribute.hpp>

#include "redistribute/oracle.hpp"

using namespace shardwise;
using namespace test;

namespace {

struct Random {
  std::uint64_t state;
  std::int64_t below(std::int64_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<std::int64_t>((state >> 11) % static_cast<std::uint64_t>(n));
  }
};

Case random_case(Random& random, const Index& mesh) {
  Case c;
  c.mesh = mesh;
  const std::int64_t sizes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16};
  const std::int64_t rank = random.below(12) == 0 ? 0 : 1 + random.below(4);
  std::int64_t elements = 1;
  for (std::int64_t d = 0; d < rank; ++d) {
    std::int64_t n = sizes[random.below(12)];
    if (n == 0 && random.below(4) != 0) n = 11;
    if (elements * n > 1500) n = 2;
    elements *= n;
    c.global.push_back(n);
  }
  if (rank == 2 && random.below(12) == 0) c.global = {67, 1 + random.below(150)};  // beyond what is staged
  const bool linear = random.below(3) != 0;
  const ReduceOp others[] = {ReduceOp::max, ReduceOp::min, ReduceOp::product};
  const ReduceOp other = others[random.below(3)];
  const auto plain = [&] {
    return rank > 0 && random.below(3) != 0 ? detail::shard_value(static_cast<int>(random.below(rank)))
                                            : detail::replicate_value();
  };
  for (std::size_t a = 0; a < mesh.size(); ++a) {
    PlacementValue from = plain();
    if (random.below(3) == 0)
      from = detail::partial_value(!linear ? other : random.below(3) == 0 ? ReduceOp::avg : ReduceOp::sum);
    PlacementValue to = plain();
    const std::int64_t what = random.below(6);
    if (what == 0) to = from;
    if (what == 1 && linear && !from.is_partial()) to = detail::partial_value();
    c.from.push_back(from);
    c.to.push_back(to);
  }
  c.salt = random.below(1000);
  return c;
}

template <class T, Name... Axes, std::size_t N>
void cases(const std::int64_t (&shape)[N], int count, std::uint64_t seed) {
  Failures failures;
  int ranks = 1;
  for (const std::int64_t n : shape) ranks *= static_cast<int>(n);
  run_ranks(ranks, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<Axes...>(world, shape);
    Random random{seed * 2654435761u + 88172645463325252u};
    for (int i = 0; i < count; ++i) {
      Case c = random_case(random, Index(std::begin(shape), std::end(shape)));
      if (is_complex<T>)
        for (PlacementValue& p : c.from)
          if (p.is_partial() && p.op != ReduceOp::avg) p.op = ReduceOp::sum;
      if (is_complex<T>)
        for (std::size_t a = 0; a < N; ++a)
          if (c.to[a].is_partial()) c.to[a] = c.from[a].is_partial() ? c.from[a] : detail::partial_value();
      check<T>(mesh, c, failures);
    }
  });
  INFO("seed ", seed, ": ", failures.count(), " failures, the first: ", failures.first());
  CHECK(failures.count() == 0);
}

// SHARDWISE_TEST_SEED repeats or varies a run.
std::uint64_t seed() {
  const char* given = std::getenv("SHARDWISE_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
}

}  // namespace

TEST_CASE("random moves on two axes are one exchange and right") {
  cases<double, "a", "b">({2, 2}, 1500, seed());
  cases<double, "a", "b">({2, 3}, 800, seed() + 1);
  cases<float, "a", "b">({4, 2}, 500, seed() + 2);
  cases<double, "a", "b">({3, 1}, 300, seed() + 3);
  cases<double, "a", "b">({1, 4}, 300, seed() + 4);
}

TEST_CASE("random moves on three axes are one exchange and right") {
  cases<double, "a", "b", "c">({2, 2, 2}, 800, seed() + 5);
  cases<double, "a", "b", "c">({2, 1, 3}, 500, seed() + 6);
}

TEST_CASE("random moves of other element types") {
  cases<bfloat16, "a", "b">({2, 2}, 300, seed() + 7);
  cases<std::int64_t, "a", "b">({2, 2}, 300, seed() + 8);
  cases<std::complex<float>, "a", "b">({2, 2}, 300, seed() + 9);
}
