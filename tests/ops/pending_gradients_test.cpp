// A pending gradient that arrives at an operator of replicated operands goes on pending to each of them, and is reduced once, when
// the leaf is settled. One device has the sum of what the ranks feed in.
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

namespace {

// f of replicated leaves: each rank feeds a gradient of its own into to_local<Partial<>>.
template <class Mesh, class F, class... X>
void check_pending(const Mesh& mesh, F f, const X&... inputs) {
  std::tuple<X...> dense{clone(inputs)...};
  auto placed = std::make_tuple(test::place(At<Replicate>(), inputs, mesh)...);
  std::apply([](auto&... x) { (x.requires_grad(true), ...); }, dense);
  std::apply([](auto&... x) { (x.requires_grad(true), ...); }, placed);
  const auto y = std::apply(f, dense);
  const auto z = std::apply(f, placed);
  const auto g = values(y.shape(), 77);
  const auto ranks = static_cast<double>(mesh.size());
  backward(y, g);
  CommDebugMode comm;
  // 1 + ... + ranks in parts
  backward(to_local<Partial<>>(z),
           g * (2.0 * static_cast<double>(1 + mesh.grid().coordinate[0]) / (ranks * (ranks + 1))));
  CHECK(comm.total_count() == 0);
  const auto compare = [&](const auto& a, const auto& b) {
    REQUIRE(b.has_grad());
    CHECK_THROWS_AS((void)b.grad(), Error);
    settle(b);
    check_close(b.grad().to_local(), a.grad());
  };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (compare(std::get<I>(dense), std::get<I>(placed)), ...);
  }(std::index_sequence_for<X...>());
  CHECK(comm.total_count() == static_cast<std::int64_t>(sizeof...(X)));
}

}  // namespace

SHARDWISE_TEST_RANKS("a pending gradient passes through operators of replicated operands and is settled at the leaves",
                     4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = values({3, 4}, 1), w = values({5, 4}, 2);
  const auto row = values({4}, 3), b = values({5}, 4);
  check_pending(mesh, [](const auto& p, const auto& q) { return p + q; }, x, row);
  check_pending(mesh, [](const auto& p, const auto& q) { return p * q; }, x, row);
  check_pending(mesh, [](const auto& p) { return relu(p) * 2.0; }, x);
  check_pending(mesh, [](const auto& p, const auto& q, const auto& r) { return linear(p, q, r); }, x, w, b);
  check_pending(
      mesh, [](const auto& p, const auto& q, const auto& r) { return layer_norm(p, q, r); }, x, row, values({4}, 5));
}

SHARDWISE_TEST_RANKS("settling leaves the gradient that the caller gave as it was", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = test::place(At<Replicate>(), values({3}, 1), mesh);
  x.requires_grad(true);
  const auto g = values({3}, 2);
  const auto before = clone(g);
  backward(to_local<Partial<>>(x), g);
  settle(x);
  check_close(x.grad().to_local(), before * 4.0);
  CHECK(equal(g, before));
}
