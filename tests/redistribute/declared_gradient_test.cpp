// from_local with a declared gradient: a pending sum stays a term of each part, whatever the other axes do.
#include <shardwise/core.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <std::size_t R>
Tensor<float, R> leaf(Tensor<float, R> x) {
  x.requires_grad(true);
  return x;
}
using Term = WithGradient<Replicate, Partial<>>;

}  // namespace

SHARDWISE_TEST_RANKS("DT-7 a replicated part whose gradient is declared pending gets its term, unreduced", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(ones<float>({3, 3}));
  const auto x = from_local<Term>(local, mesh);
  static_assert(std::is_same_v<decltype(x), decltype(from_local<Replicate>(local, mesh)) const>);
  const Counter counter;
  backward(to_local<Partial<>>(x), full<float>({3, 3}, 2.0f * static_cast<float>(world.rank())));
  CHECK(counter.total == 0);
  CHECK(all_are(local.grad(), 2.0 * world.rank()));

  const auto undeclared = leaf(ones<float>({3, 3}));
  backward(to_local<Partial<>>(from_local<Replicate>(undeclared, mesh)), full<float>({3, 3}, 2.0f));
  CHECK(counter.total == 1);
  CHECK(all_are(undeclared.grad(), 8));
}

SHARDWISE_TEST_RANKS("a complete gradient becomes a term of the first rank: the terms add up to it", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(ones<float>({5}));
  const Counter counter;
  backward(to_local<>(from_local<Term>(local, mesh)), full<float>({5}, 3.0f));
  CHECK(counter.total == 0);
  CHECK(all_are(local.grad(), world.rank() == 0 ? 3 : 0));
}

SHARDWISE_TEST_RANKS("declared on one axis of two: the other one is settled", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto local = leaf(ones<float>({4}));
  const auto x = from_local<Replicate, Term>(local, mesh);
  const Counter counter;
  const auto mine = full<float>({4}, static_cast<float>(1 + world.rank()));
  backward(to_local<Partial<>, Partial<>>(x), mine);
  CHECK(counter.total == 1);
  CHECK(counter.count(Collective::all_reduce) == 1);
  const int tp = world.rank() % 2;  // ranks tp and tp + 2
  CHECK(all_are(local.grad(), 1 + tp + 1 + tp + 2));
}

SHARDWISE_TEST_RANKS("the default, declared, is the default; a part used both ways gets both gradients", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(ones<float>({4}));
  const auto plain = from_local<WithGradient<Replicate, Replicate>>(local, mesh);
  const auto term = from_local<Term>(local, mesh);
  const Counter counter;
  backward(to_local<Partial<>>(plain), ones<float>({4}));
  CHECK(all_are(local.grad(), 4));
  CHECK(counter.total == 1);
  backward(to_local<Partial<>>(term), ones<float>({4}));
  CHECK(all_are(local.grad(), 5));
  CHECK(counter.total == 1);
  const auto rows = from_local<WithGradient<Shard<-1>, Shard<0>>>(local, mesh);
  CHECK(rows.shape() == Shape<1>{16});
}

SHARDWISE_TEST_RANKS("one part as two tensors of one shape: each settles on its own axis", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto local = leaf(ones<float>({2, 2}));
  const auto rows = from_local<Shard<0>, Replicate>(local, mesh);  // both (4, 2)
  const auto others = from_local<Replicate, Shard<0>>(local, mesh);
  const auto of_rank = [](int rank, float factor) {
    return full<float>({2, 2}, factor * static_cast<float>(1 + rank));
  };
  backward(to_local<Shard<0>, Partial<>>(rows), of_rank(world.rank(), 1));
  backward(to_local<Partial<>, Shard<0>>(others), of_rank(world.rank(), 10));
  const int dp = world.rank() / 2, tp = world.rank() % 2;
  CHECK(all_are(local.grad(), (1 + 2 * dp) + (2 + 2 * dp) + 10 * ((1 + tp) + (3 + tp))));
}
