// Several tensors in one exchange: each result against the oracle, the number of exchanges, gradients, ranks that disagree.
#include <doctest/doctest.h>

#include <complex>
#include <string>
#include <vector>

#include <shardwise/core.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/made.hpp"
#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

TEST_CASE("redistribute_all moves tensors of different types, ranks, sizes and placements in one exchange") {
  for (const int n : {2, 3, 4, 7})
    for (const std::int64_t rows : {0, 1, 5, 130}) {  // all staged; with 130 straight from peer memory
      Failures failures;
      run_ranks(n, [&](ThreadCommunicator world) {
        const auto mesh = init_device_mesh<"tp">(world, {n});
        const auto a = made<float, Shard<0>>(mesh, {rows, 70}, 1);
        const auto b = made<double, Partial<>>(mesh, {rows, 3, 11}, 2);
        const auto c = made<std::int64_t, Shard<0>>(mesh, {rows}, 3);
        const auto d = made<bfloat16, Partial<Max>>(mesh, {4, rows}, 4);
        const auto e = made<std::complex<float>, Shard<1>>(mesh, {6, rows}, 5);
        const auto f = made<std::int32_t, Replicate>(mesh, {rows, 2}, 6);
        const auto g = made<double, Partial<Avg>>(mesh, {rows}, 7);
        const CommDebugMode mode;
        const auto [a1, b1, c1, d1, e1, f1, g1, same] =
            redistribute_all(to<Shard<1>>(a), to<Replicate>(b), to<Replicate>(c), to<Shard<-1>>(d), to<Shard<0>>(e),
                             to<On<"tp", Shard<0>>>(f), to<Replicate>(g), to<Shard<0>>(a));
        if (mode.total_count() != 1) failures.add("exchanges");
        if (!is_moved(a, a1, 1)) failures.add("a");
        if (!is_moved(b, b1, 2)) failures.add("b");
        if (!is_moved(c, c1, 3)) failures.add("c");
        if (!is_moved(d, d1, 4)) failures.add("d");
        if (!is_moved(e, e1, 5)) failures.add("e");
        if (!is_moved(f, f1, 6)) failures.add("f");
        if (!is_moved(g, g1, 7)) failures.add("g");
        if (same.data() != a.data()) failures.add("the tensor that lies as wanted is not itself");
        if (!is_moved(a, a, 1) || !is_moved(b, redistribute<Replicate>(b), 2)) failures.add("an input was written");
      });
      CAPTURE(n);
      CAPTURE(rows);
      INFO(failures.first());
      CHECK(failures.count() == 0);
    }
}

SHARDWISE_TEST_RANKS("one exchange for each group of axes, none for what is local", 6) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
  const auto x = made<float, Shard<0>, Shard<1>>(mesh, {40, 50}, 1);
  const auto s = made<float, Partial<>, Shard<0>>(mesh, {40, 50}, 2);
  const auto r = made<float, Replicate, Replicate>(mesh, {9, 9}, 3);
  mesh.group(3);  // not to be counted
  CommDebugMode mode;
  const auto [a, b, c, d, e, f] =
      redistribute_all(to<Shard<1>, Shard<0>>(x), to<Shard<0>, Replicate>(x), to<Replicate, Shard<0>>(s),
                       to<On<"tp", Replicate>>(s), to<Replicate, Shard<1>>(s), to<Shard<0>, Partial<>>(r));
  CHECK(mode.axis_count("dp_tp") == 1);
  CHECK(mode.axis_count("tp") == 1);
  CHECK(mode.axis_count("dp") == 1);
  CHECK(mode.total_count() == 3);
  CHECK(is_moved(x, a, 1));
  CHECK(is_moved(x, b, 1));
  CHECK(is_moved(s, c, 2));
  CHECK(is_moved(s, d, 2));
  CHECK(is_moved(s, e, 2));
  CHECK(is_moved(r, f, 3));
}

SHARDWISE_TEST_RANKS("an exchange of equal collectives keeps its name, and its bytes are the sum", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = made<float, Shard<0>>(mesh, {8, 10});
  const auto y = made<double, Shard<1>>(mesh, {3, 4});
  CommDebugMode mode;
  redistribute_all(to<Replicate>(x), to<Replicate>(y));
  CHECK(mode.count(Collective::all_gather) == 1);
  CHECK(mode.total_bytes() == 6 * 10 * 4 + 3 * 3 * 8);
  redistribute_all(to<Replicate>(x), to<Shard<0>>(y));
  CHECK(mode.count(Collective::all_to_all) == 1);
}

SHARDWISE_TEST_RANKS("gradients of a joint move are those of its moves", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = made<float, Shard<0>>(mesh, {10, 12}, 1);
  auto y = made<double, Partial<>>(mesh, {7, 5}, 2);
  const auto z = made<float, Shard<0>>(mesh, {3, 3}, 3);
  x.requires_grad(true);
  y.requires_grad(true);
  const auto [a, b, c] = redistribute_all(to<Shard<1>>(x), to<Shard<0>>(y), to<Replicate>(z));
  const auto ga = made<float, Shard<1>>(mesh, {10, 12}, 5);
  const auto gb = made<double, Shard<0>>(mesh, {7, 5}, 6);
  backward(a, ga);
  backward(b, gb);
  CHECK(is_moved(ga, x.grad(), 5));
  CHECK(is_moved(gb, y.grad(), 6));
  CHECK(!c.requires_grad());
}

SHARDWISE_TEST_RANKS("block-cyclic tensors go along", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = made<float, Shard<0>>(mesh, {45, 31});
  const auto y = made<float, Partial<>>(mesh, {200, 90}, 4);
  CommDebugMode mode;
  const auto [cyclic, sum] = redistribute_all(to<BlockCyclic<1, 2>>(x), to<Replicate>(y));
  CHECK(mode.total_count() == 1);
  CHECK(equal(redistribute<BlockCyclic<1, 2>>(x).to_local(), cyclic.to_local()));
  CHECK(is_moved(y, sum, 4));
  const auto [back, again] = redistribute_all(to<Shard<0>>(cyclic), to<Shard<1>>(sum));
  CHECK(is_moved(x, back));
}

SHARDWISE_TEST_RANKS("ranks outside the mesh take no part", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {2});
  const auto x = zeros<float, Shard<0>>(mesh, {4, 4});
  const auto y = zeros<double, Shard<1>>(mesh, {4, 4});
  const auto [a, b] = redistribute_all(to<Replicate>(x), to<Shard<0>>(y));
  CHECK(a.size() == (mesh.is_member() ? 16 : 0));
  CHECK(b.size() == (mesh.is_member() ? 8 : 0));
}

SHARDWISE_TEST_RANKS("tensors of two meshes of one type are refused", 4) {
  const auto line = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto other = init_device_mesh<"dp", "tp">(world, {4, 1});
  const auto x = zeros<float, Shard<0>, Replicate>(line, {4, 4});
  const auto y = zeros<float, Shard<0>, Replicate>(other, {4, 4});
  CHECK(contains(thrown<Error>([&] { redistribute_all(to<Replicate, Replicate>(x), to<Replicate, Replicate>(y)); }),
                 "different meshes"));
}

TEST_CASE("ranks that move different tensors together get a MismatchError") {
  std::vector<std::string> messages(2);
  CHECK_THROWS_AS(run_ranks(2,
                            [&](ThreadCommunicator world) {
                              const auto mesh = init_device_mesh<"tp">(world, {2});
                              const auto x = zeros<float, Shard<0>>(mesh, {4, 4});
                              const auto y = zeros<double, Shard<0>>(mesh, {world.rank() == 0 ? 2 : 8, 2});
                              redistribute_all(to<Replicate>(x), to<Replicate>(y));
                            }),
                  MismatchError);
  CHECK_THROWS_AS(run_ranks(2,
                            [&](ThreadCommunicator world) {
                              const auto mesh = init_device_mesh<"tp">(world, {2});
                              const auto x = zeros<float, Shard<0>>(mesh, {4, 4});
                              const auto y = zeros<float, Shard<0>>(mesh, {2, 8});
                              if (world.rank() == 0)  // the same elements in all, in another order
                                redistribute_all(to<Replicate>(x), to<Replicate>(y));
                              else
                                redistribute_all(to<Replicate>(y), to<Replicate>(x));
                            }),
                  MismatchError);
}

TEST_CASE("the gradient of a pending maximum is refused before anything moves") {
  run_ranks(2, [](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"tp">(world, {2});
    auto x = zeros<float, Partial<Max>>(mesh, {4, 4});
    const auto y = zeros<float, Shard<0>>(mesh, {4, 4});
    if (world.rank() == 0) x.requires_grad(true);
    if (world.rank() == 0)
      CHECK(contains(thrown<Error>([&] { redistribute_all(to<Replicate>(y), to<Replicate>(x)); }), "has no gradient"));
    world.barrier();
  });
}
