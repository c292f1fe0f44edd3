// as_partial: terms whose reduction is the value, for every operation and element type; gradients.
#include <doctest/doctest.h>

#include <complex>
#include <limits>
#include <type_traits>

#include <shardwise/core.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/redistribute/as_partial.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <class T, class... P, class Mesh>
auto counted(const Mesh& mesh, const std::int64_t (&shape)[2]) {
  auto x = detail::make_tensor<T, 2, Distributed<Mesh, P...>>(detail::Extents(detail::to_shape(shape)), mesh);
  for (std::int64_t i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<T>(static_cast<float>(i % 100 - (std::is_same_v<T, std::uint8_t> ? 0 : 50)));
  return x;
}

template <class T, class Op, class Mesh>
void is_its_reduction(const Mesh& mesh, T neutral) {
  for (const std::int64_t rows : {0, 1, 7}) {
    const auto x = counted<T, Replicate>(mesh, {rows, 5});
    CommDebugMode mode;
    const auto terms = as_partial<Op>(x);
    CHECK(mode.total_count() == 0);
    static_assert(std::is_same_v<std::decay_t<decltype(terms)>, DTensor<T, 2, Mesh, Partial<Op>>>);
    for (std::int64_t i = 0; i < terms.size(); ++i)
      CHECK(terms.data()[i] == (mesh.local_rank() == 0 || Op::op == ReduceOp::avg ? x.data()[i] : neutral));
    const auto value = redistribute<Replicate>(terms);
    for (std::int64_t i = 0; i < value.size(); ++i) CHECK(value.data()[i] == x.data()[i]);
  }
}

template <class T, class Mesh>
void is_its_reduction_ordered(const Mesh& mesh, T least, T largest) {
  is_its_reduction<T, Sum>(mesh, T(0));
  is_its_reduction<T, Product>(mesh, T(1));
  is_its_reduction<T, Max>(mesh, least);
  is_its_reduction<T, Min>(mesh, largest);
}

}  // namespace

SHARDWISE_TEST_RANKS("as_partial gives terms whose reduction is the value", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const float inf = std::numeric_limits<float>::infinity();
  is_its_reduction_ordered<float>(mesh, -inf, inf);
  is_its_reduction_ordered<double>(mesh, -static_cast<double>(inf), static_cast<double>(inf));
  is_its_reduction_ordered<bfloat16>(mesh, bfloat16(-inf), bfloat16(inf));
  is_its_reduction_ordered<half>(mesh, half(-inf), half(inf));
  is_its_reduction_ordered<std::int32_t>(mesh, std::numeric_limits<std::int32_t>::min(),
                                         std::numeric_limits<std::int32_t>::max());
  is_its_reduction_ordered<std::int64_t>(mesh, std::numeric_limits<std::int64_t>::min(),
                                         std::numeric_limits<std::int64_t>::max());
  is_its_reduction_ordered<std::uint8_t>(mesh, 0, 255);
  using Complex = std::complex<float>;
  is_its_reduction<Complex, Sum>(mesh, Complex(0));
  is_its_reduction<Complex, Product>(mesh, Complex(1));
  is_its_reduction<float, Avg>(mesh, 0);
  is_its_reduction<double, Avg>(mesh, 0);
}

SHARDWISE_TEST_RANKS("as_partial on one axis leaves the others, on all the first rank keeps the value", 6) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
  using Mesh = std::decay_t<decltype(mesh)>;
  const auto x = counted<double, Replicate, Shard<1>>(mesh, {6, 9});
  const auto terms = as_partial<On<"dp", Partial<Min>>>(x);
  static_assert(std::is_same_v<std::decay_t<decltype(terms)>, DTensor<double, 2, Mesh, Partial<Min>, Shard<1>>>);
  CHECK(equal(redistribute<On<"dp", Replicate>>(terms).to_local(), x.to_local()));
  CHECK(terms.data()[0] == (mesh.local_rank<"dp">() == 0 ? x.data()[0] : std::numeric_limits<double>::infinity()));

  const auto whole = counted<float, Replicate, Replicate>(mesh, {6, 9});
  const auto all = as_partial<Product>(whole);
  static_assert(
      std::is_same_v<std::decay_t<decltype(all)>, DTensor<float, 2, Mesh, Partial<Product>, Partial<Product>>>);
  CHECK(equal(redistribute<Replicate, Replicate>(all).to_local(), whole.to_local()));
  CHECK(all.data()[0] == (world.rank() == 0 ? whole.data()[0] : 1.0f));
  // What is pending already stays, and the rest joins it.
  const auto one = as_partial<On<"tp", Partial<Max>>>(whole);
  CHECK(equal(redistribute<Replicate, Replicate>(as_partial<Max>(one)).to_local(), whole.to_local()));
  const auto mixed = as_partial<On<"dp", Partial<Avg>>>(as_partial<On<"tp", Partial<Sum>>>(whole));
  CHECK(equal(redistribute<Replicate, Replicate>(mixed).to_local(), whole.to_local()));
}

SHARDWISE_TEST_RANKS("Avg shares the elements, the others copy them", 2) {
  const auto mesh = init_device_mesh<"tp">(world, {2});
  const auto x = counted<float, Replicate>(mesh, {6, 9});
  CHECK(as_partial<Avg>(x).data() == x.data());
  CHECK(as_partial<Sum>(x).data() != x.data());
}

SHARDWISE_TEST_RANKS("there and back has the gradient of the identity, for Sum and Avg", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto grad = counted<float, Replicate>(mesh, {3, 5});
  {
    auto x = counted<float, Replicate>(mesh, {3, 5});
    x.requires_grad(true);
    backward(redistribute<Replicate>(as_partial<Sum>(x)), grad);
    CHECK(equal(x.grad().to_local(), grad.to_local()));
  }
  {
    auto x = counted<float, Replicate>(mesh, {3, 5});
    x.requires_grad(true);
    backward(redistribute<Replicate>(as_partial<Avg>(x)), grad);
    CHECK(equal(x.grad().to_local(), grad.to_local()));
    CHECK(grad.data()[0] == -50.0f);  // the gradient that was given is not written
  }
  {  // a shard of the sum of the terms: each rank's gradient is a part, which the move back gathers
    auto x = counted<float, Replicate>(mesh, {4, 5});
    x.requires_grad(true);
    backward(redistribute<Shard<0>>(as_partial<Avg>(x)), full<float, Shard<0>>(mesh, {4, 5}, 3.0f));
    CHECK(all_are(x.grad(), 3));
  }
}

SHARDWISE_TEST_RANKS("a pending gradient stays pending through as_partial", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  // The gradient of to_local<Partial<>> is pending: the ranks' gradients add up.
  for (const bool average : {false, true}) {
    auto x = counted<float, Replicate>(mesh, {3, 5});
    x.requires_grad(true);
    CommDebugMode mode;
    const auto seed = full<float>({3, 5}, static_cast<float>(world.rank() + 1));
    if (average)
      backward(to_local<Partial<>>(as_partial<Avg>(x)), seed);
    else
      backward(to_local<Partial<>>(as_partial<Sum>(x)), seed);
    CHECK(mode.total_count() == 0);
    CHECK(contains(thrown<Error>([&] { x.grad(); }), "pending"));
    // Of four terms with a quarter of the weight each, every one was the value.
    CHECK(x.impl()->slot->pending == 1);
    CHECK(x.impl()->slot->grad.as<float>()[0] == static_cast<float>((world.rank() + 1) * (average ? 4 : 1)));
  }
}

SHARDWISE_TEST_RANKS("Max, Min and Product have no gradient", 2) {
  const auto mesh = init_device_mesh<"tp">(world, {2});
  auto x = counted<float, Replicate>(mesh, {3, 5});
  x.requires_grad(true);
  CHECK(contains(thrown<Error>([&] { as_partial<Max>(x); }), "shardwise::as_partial: a pending maximum"));
  CHECK(contains(thrown<Error>([&] { as_partial<Product>(x); }), "no gradient"));
  const NoGrad guard;
  CHECK(!as_partial<Min>(x).requires_grad());
}
