// What the programs of generate.py are written in: moves that leave a plain tensor as it is, and the comparison with one device.
#pragma once

#if defined(SHARDWISE_TEST_DEVICES)  // ranks have a GPU each
#include <shardwise/backends/nccl.hpp>
#include <shardwise/device/redistribute.hpp>
#endif
#include <shardwise/testing/doctest.hpp>

#include <cstdint>
#include <tuple>
#include <utility>

#include <shardwise/shardwise.hpp>

namespace test {

using namespace shardwise;

template <class X>
inline constexpr bool on_a_mesh = requires(const X& x) { x.mesh(); };

template <class... P, class X>
auto move(const X& x) {
  if constexpr (on_a_mesh<X>)
    return redistribute<P...>(x);
  else
    return x;
}
template <class... P, class X>
auto move_later(const X& x) {
  if constexpr (on_a_mesh<X>)
    return redistribute_async<P...>(x).wait();
  else
    return x;
}
template <Name axis, class X>
auto to_terms(const X& x) {
  if constexpr (on_a_mesh<X>)
    return as_partial<On<axis, Partial<>>>(x);
  else
    return x;
}

template <class... P>
struct To {
  template <class X>
  static auto move(const X& x) {
    return to<P...>(x);
  }
  template <class X, class Mesh>
  static auto distribute(const X& x, const Mesh& mesh) {
    return distribute_tensor<P...>(x, mesh);
  }
};
template <class A, class B, class X, class Y>
auto move_both(const X& x, const Y& y) {
  if constexpr (on_a_mesh<X>)
    return redistribute_all(A::move(x), B::move(y));
  else
    return std::tuple(x, y);
}

template <class X>
auto on_host(const X& x) {
  if constexpr (requires { to_host(x); })
    return to_host(x);
  else
    return x;
}

inline Tensor<std::int64_t, 1> indices() {
  Tensor<std::int64_t, 1> index({7});
  for (std::int64_t i = 0; i < 7; ++i) index.data()[i] = (i * 3 + 1) % 4;
  return index;
}

template <class Program, class... Placements, class Mesh, std::size_t... R>
void check_program(const Mesh& mesh, std::uint64_t seed, const std::int64_t (&... shapes)[R]) {
  manual_seed(seed);
  const auto leaf = [](auto x) {
    x.requires_grad(true);
    return x;
  };
  const std::tuple dense{leaf(detach(rand<double>(shapes) - 0.5))...};
  const auto index = indices();
  manual_seed(seed);
  const auto loss = std::apply([&](const auto&... x) { return Program{}(index, x...); }, dense);
  backward(loss);

  const std::tuple sharded =
      std::apply([&](const auto&... x) { return std::tuple{leaf(Placements::distribute(detach(x), mesh))...}; }, dense);
  manual_seed(seed);
  const auto sharded_index = [&]<std::size_t... Axis>(std::index_sequence<Axis...>) {
    return distribute_tensor<std::enable_if_t<Axis + 1 != 0, Replicate>...>(index, mesh);
  }(std::make_index_sequence<Mesh::ndim>());
  const auto sharded_loss = std::apply([&](const auto&... x) { return Program{}(sharded_index, x...); }, sharded);
  backward(sharded_loss);
  std::apply([&](const auto&... x) { settle_gradients(parameters(x...)); }, sharded);

  constexpr Tolerance close{.rtol = 1e-10, .atol = 1e-12};
  CHECK(allclose(on_host(sharded_loss.to_local()), loss, close));
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const auto compare = [&](std::size_t leaf_index, const auto& x, const auto& y) {
      CAPTURE(leaf_index);
      REQUIRE(y.has_grad() == x.has_grad());
      if (x.has_grad()) CHECK(allclose(on_host(y.grad().full_tensor()), x.grad(), close));
    };
    (compare(I, std::get<I>(dense), std::get<I>(sharded)), ...);
  }(std::make_index_sequence<sizeof...(shapes)>());
}

}  // namespace test
