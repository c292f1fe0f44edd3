// Block-cyclic and strided placements: all pairs against a brute-force oracle, on one axis and on two.
#include <doctest/doctest.h>

#include <complex>

#include <shardwise/backends/thread.hpp>
#include <shardwise/redistribute/redistribute.hpp>

#include "redistribute/oracle.hpp"
#include "support/limited_threads.hpp"
#include "support/random.hpp"

using namespace shardwise;
using namespace test;

namespace {

const std::int64_t extents[] = {0, 1, 2, 3, 5, 7, 8, 64};

PlacementValue R() { return detail::replicate_value(); }
PlacementValue S(int d) { return detail::shard_value(d); }
PlacementValue P(ReduceOp op = ReduceOp::sum) { return detail::partial_value(op); }
PlacementValue BC(int d, std::int64_t block) { return detail::block_cyclic_value(d, block); }
PlacementValue SS(int d, std::int64_t factor) { return detail::strided_value(d, factor); }

}  // namespace

TEST_CASE("every pair of placements on one axis, also block-cyclic and strided, gives what the oracle says") {
  for (const int n : {1, 2, 3, 4}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      std::int64_t salt = 0;
      for (const std::int64_t rows : extents)
        for (const std::int64_t columns : extents)
          for (const PlacementValue& from : {R(), S(0), S(1), P(), P(ReduceOp::avg), P(ReduceOp::max), BC(0, 2),
                                             BC(1, 3), BC(0, 100), SS(0, 2), SS(1, 3)})
            for (const PlacementValue& to : {R(), S(0), S(1), P(), BC(0, 2), BC(1, 3), SS(0, 2), SS(1, 100)}) {
              if (to.is_partial() && from.is_partial() && from.op != to.op) continue;
              if (rows * columns > 200 && salt++ % 5 != 0) continue;
              check<double, true>(mesh, {{n}, {rows, columns}, {from}, {to}, salt++ % 1000}, failures);
            }
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("every pair of placements on two axes, also block-cyclic and strided, gives what the oracle says") {
  const PlacementValue all[] = {R(), S(0), S(1), P(), BC(0, 2), BC(1, 3), SS(0, 2)};
  for (const std::int64_t k : {2, 3}) {
    Failures failures;
    run_ranks(2 * static_cast<int>(k), [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"dp", "tp">(world, {2, k});
      std::int64_t salt = 0;
      for (const PlacementValue& a : all)
        for (const PlacementValue& b : all)
          for (const PlacementValue& c : all)
            for (const PlacementValue& d : all) {
              ++salt;
              const std::int64_t rows = extents[salt % 8];
              const std::int64_t columns = extents[salt / 8 % 8];
              if (rows * columns > 600) continue;
              check<double, true>(mesh, {{2, k}, {rows, columns}, {a, b}, {c, d}, salt % 1000}, failures);
            }
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("other element types, and tensors beyond what is staged") {
  const PlacementValue all[] = {R(), S(0), S(1), P(), BC(0, 2), BC(1, 64), BC(1, 1), SS(0, 2)};
  Failures failures;
  run_ranks(4, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    for (const ReduceOp op :
         {ReduceOp::sum, ReduceOp::max}) {  // more in a row than is gathered at once, cut within a run
      check<std::int64_t, true>(mesh, {{4}, {3, 4000}, {P(op)}, {BC(1, 48)}, 3}, failures);
      check<half, true>(mesh, {{4}, {3, 4000}, {P(op)}, {BC(1, 5)}, 3}, failures);
    }
    // Blocks that are longer than what is gathered of one term, and many of them.
    check<std::complex<double>, true>(mesh, {{4}, {2, 4 * 300 * 9 + 7}, {P()}, {BC(1, 300)}, 3}, failures);
    check<std::complex<double>, true>(mesh, {{4}, {2, 4 * 3 * 200 + 7}, {P()}, {BC(1, 3)}, 3}, failures);
    for (const PlacementValue& from : all)
      for (const PlacementValue& to : all) {
        check<bfloat16, true>(mesh, {{4}, {9, 14}, {from}, {to}, 3}, failures);
        check<std::int64_t, true>(mesh, {{4}, {9, 14}, {from}, {to}, 3}, failures);
        check<std::uint8_t, true>(mesh, {{4}, {9, 0}, {from}, {to}, 3}, failures);
        check<std::complex<double>, true>(mesh, {{4}, {9, 14}, {from}, {to}, 3}, failures);
        check<float, true>(mesh, {{4}, {67, 1030}, {from}, {to}, 3}, failures);
        check<float, true>(mesh, {{4}, {12, 5, 300}, {from}, {to}, 3}, failures);
      }
  });
  INFO(failures.first());
  CHECK(failures.count() == 0);
}

namespace {

Case random_case(Random& random, const Index& mesh) {
  Case c;
  c.mesh = mesh;
  const std::int64_t rank = random.below(10) == 0 ? 0 : 1 + random.below(3);
  for (std::int64_t d = 0; d < rank; ++d) c.global.push_back(random.below(rank == 1 ? 90 : 14));
  const auto any = [&]() -> PlacementValue {
    if (rank == 0) return R();
    const int d = static_cast<int>(random.below(rank));
    switch (random.below(5)) {
      case 0: return R();
      case 1: return S(d);
      case 2: return SS(d, 1 + random.below(5));
      default: return BC(d, 1 + random.below(5));
    }
  };
  for (std::size_t a = 0; a < mesh.size(); ++a) {
    c.from.push_back(random.below(4) == 0 ? P(random.below(3) == 0 ? ReduceOp::avg : ReduceOp::sum) : any());
    c.to.push_back(random.below(5) == 0 ? c.from[a] : any());
    if (random.below(6) == 0 && !c.from[a].is_partial()) c.to[a] = P();
  }
  c.salt = random.below(1000);
  return c;
}

// Where ranks see nothing of each other but messages.
template <class Mesh>
void check_in_messages(const Mesh& mesh, const Case& c, Failures& failures) {
  const Index me = coordinate_of(mesh);
  const auto from = list_of<Mesh::ndim>(c.from), to = list_of<Mesh::ndim>(c.to);
  const detail::Remap move(detail::grid_view(mesh, from), detail::grid_view(mesh, to), extents_of(c.global),
                           DType::float64);
  if (!move.communicates()) return;
  const auto in = source(c, me);
  const auto right = expected(c, me);
  std::vector<double> out(right.size(), 99);
  detail::exchange(MessagingThreads(mesh.group(move.axes())), move, DType::float64, in.data(), out.data());
  detail::divide(DType::float64, out.data(), static_cast<std::int64_t>(out.size()), move.divisor());
  if (out != right) failures.add("in messages: " + text(c) + " at " + text(me));
}

template <Name... Axes, std::size_t N>
void random_cases(const std::int64_t (&shape)[N], int count, std::uint64_t seed) {
  Failures failures;
  int ranks = 1;
  for (const std::int64_t n : shape) ranks *= static_cast<int>(n);
  run_ranks(ranks, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<Axes...>(world, shape);
    Random random{seed * 2654435761u + 88172645463325252u};
    for (int i = 0; i < count; ++i) {
      const Case c = random_case(random, Index(std::begin(shape), std::end(shape)));
      check<double, true>(mesh, c, failures);
      if (i % 4 == 0) check_in_messages(mesh, c, failures);
    }
  });
  INFO("seed ", seed, ": ", failures.count(), " failures, the first: ", failures.first());
  CHECK(failures.count() == 0);
}

}  // namespace

TEST_CASE("random moves between placements of every kind, nested in one dimension too") {
  random_cases<"a">({5}, 1500, 1);
  random_cases<"a", "b">({2, 3}, 1500, 2);
  random_cases<"a", "b">({4, 1}, 600, 3);
  random_cases<"a", "b", "c">({2, 2, 2}, 1200, 4);
}

TEST_CASE("index sets partition a dimension, and find what they hold") {
  Random random{77};
  for (int i = 0; i < 2000; ++i) {
    const std::int64_t n = random.below(200);
    const std::int64_t a = 1 + random.below(5);
    const std::int64_t b = 1 + random.below(4);
    const auto split = [&]() -> PlacementValue {
      const std::int64_t kind = random.below(3);
      return kind == 0 ? S(0) : kind == 1 ? BC(0, 1 + random.below(9)) : SS(0, 1 + random.below(9));
    };
    const detail::PlacementList<2> list{split(), split()};
    std::vector<int> times(static_cast<std::size_t>(n), 0);
    bool consistent = true;
    for (std::int64_t p = 0; p < a; ++p)
      for (std::int64_t q = 0; q < b; ++q) {
        const detail::Holding held = detail::holding_of(list, {a, b}, {p, q}, detail::Extents(Shape<1>{n}));
        const detail::IndexSet& set = held.dim[0];
        std::int64_t below = 0;  // the indices up to the last one that was held
        for (std::int64_t at = 0; at < set.size(); ++at) {
          const detail::IndexRun run = set.at(at);
          ++times[static_cast<std::size_t>(run.index)];
          for (; below <= run.index; ++below) consistent = consistent && set.lower_bound(below) == at;
          consistent = consistent && (run.size == 1 || set.at(at + 1).index == run.index + 1);
        }
        for (; below < n; ++below) consistent = consistent && set.lower_bound(below) == set.size();
      }
    for (const int t : times) consistent = consistent && t == 1;
    INFO(n, " over (", a, ",", b, ") ", detail::to_string(list));
    CHECK(consistent);
  }
}

namespace {

double inner(const Index& me, const PlacementVector& value, const PlacementVector& gradient,
             const std::vector<double>& x, const std::vector<double>& g) {
  for (std::size_t a = 0; a < me.size(); ++a)  // what all ranks hold alike counts on the first
    if (value[a].is_replicate() && gradient[a].is_replicate() && me[a] != 0) return 0;
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * g[i];
  return sum;
}

}  // namespace

TEST_CASE("the backward of a move of block-cyclic and strided tensors is its adjoint, pending gradients too") {
  struct Sum {
    std::string what;
    double forward = 0, backward = 0;
  };
  const PlacementValue all[] = {R(), S(0), P(), BC(0, 2), BC(1, 3), SS(0, 2)};
  std::vector<Sum> sums;
  std::mutex mutex;
  run_ranks(6, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
    const Index me = coordinate_of(mesh);
    std::size_t at = 0;
    for (const Index& global : {Index{7, 8}, Index{1, 5}, Index{0, 3}})
      for (const PlacementValue& a : all)
        for (const PlacementValue& b : all)
          for (const PlacementValue& c : all)
            for (const PlacementValue& d : all)
              for (const std::uint32_t pending : {0u, 1u, 2u, 3u}) {
                if (((pending & 1u) != 0 && !c.is_replicate()) || ((pending & 2u) != 0 && !d.is_replicate())) continue;
                const Case move{{2, 3}, global, {a, b}, {c, d}, 11};
                const auto have = detail::arrived(list_of<2>(move.to), pending);
                const auto want = detail::needed(list_of<2>(move.from), list_of<2>(move.to), have);
                const PlacementVector arrived{have[0], have[1]}, needed{want[0], want[1]};
                const auto x = source(move, me);
                const auto y = moved<double, true>(mesh, move.from, move.to, global, x);
                const auto g = source({{2, 3}, global, arrived, arrived, 23}, me);
                const auto back = moved<double, true>(mesh, arrived, needed, global, g);
                const double forward = inner(me, move.to, arrived, y, g);
                const double backward = inner(me, move.from, needed, x, back);
                const std::lock_guard lock(mutex);
                if (sums.size() <= at) sums.resize(at + 1);
                sums[at].what = text(move) + " pending " + std::to_string(pending);
                sums[at].forward += forward;
                sums[at].backward += backward;
                ++at;
              }
  });
  for (const Sum& s : sums) {
    INFO(s.what);
    CHECK(s.forward == s.backward);
  }
}
