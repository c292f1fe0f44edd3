// check_sharded: an operator on distributed operands against the same operator on one device, values and gradients,
// and that it moves nothing in either direction.
#pragma once

#include <cmath>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <doctest/doctest.h>

#include <shardwise/core.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/nn/visit.hpp>

#include "support/gradients.hpp"

namespace test {

/// Where one operand lies: one placement per mesh axis.
template <class... P>
struct At {};

// x on a mesh. A pending sum or average is made of terms that differ from rank to rank.
template <class... P, class T, std::size_t R, class Mesh>
auto place(At<P...>, const shardwise::Tensor<T, R>& x, const Mesh& mesh) {
  using namespace shardwise;
  auto y = distribute_tensor<std::conditional_t<placement_value<P>.is_partial(), Replicate, P>...>(
      x, mesh, {.src_data_rank = no_source});
  using Y = DTensor<T, R, Mesh, Normalized<P, R>...>;
  const auto& placements = Y::placements;
  for (std::size_t a = 0; a < Mesh::ndim; ++a) {
    if (!placements[a].is_partial()) continue;
    const std::int64_t ranks = mesh.shape()[a];
    const std::int64_t me = mesh.grid().coordinate[a];
    const bool sum = placements[a].op == ReduceOp::sum;
    for (std::int64_t i = 0; i < y.size(); ++i) {
      const double noise =
          (static_cast<double>(me) - static_cast<double>(ranks - 1) / 2) * (0.25 + 0.125 * static_cast<double>(i % 5));
      const double share =
          sum ? static_cast<double>(y.data()[i]) / static_cast<double>(ranks) : static_cast<double>(y.data()[i]);
      y.data()[i] = static_cast<T>(share + noise);
    }
  }
  return detail::share_tensor<T, R, typename Y::layout_type>(y.impl()->buffer, y.impl()->global, y.impl()->local, mesh);
}

// Ranks that x is the average of: the gradient of one term is that part of the gradient of the value.
template <class X>
double averaged_over(const X& x) {
  double n = 1;
  for (std::size_t a = 0; a < X::placements.size(); ++a)
    if (x.placements[a].is_partial() && x.placements[a].op == shardwise::ReduceOp::avg)
      n *= static_cast<double>(x.mesh().shape()[a]);
  return n;
}

// A whole tensor as the gradient of y.
template <class Y>
typename Y::Gradient gradient_of(const Y& y, const shardwise::Tensor<typename Y::value_type, Y::rank>& whole) {
  using namespace shardwise;
  constexpr detail::PlacementList<Y::placements.size()> replicated{};
  typename Y::Gradient g =
      detail::make_tensor<typename Y::value_type, Y::rank, GradientLayout<typename Y::layout_type>>(y.impl()->global,
                                                                                                    y.mesh_state());
  detail::execute(y.mesh(), replicated, Y::Gradient::placements, y.impl()->global, dtype_of<typename Y::value_type>,
                  whole.data(), g.data());
  for (std::int64_t i = 0; i < g.size(); ++i)
    g.data()[i] = static_cast<typename Y::value_type>(g.data()[i] / averaged_over(y));
  return g;
}

template <class T, std::size_t R>
void check_close(const shardwise::Tensor<T, R>& a, const shardwise::Tensor<T, R>& b, double tolerance = 1e-12) {
  REQUIRE(a.shape() == b.shape());
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
    INFO("element ", i, ": ", x, " instead of ", y);
    CHECK(((x != x && y != y) || x == y || std::fabs(x - y) <= tolerance * (1 + std::fabs(y))));
  }
}

template <class X>
void want_gradient(X& x) {
  if constexpr (shardwise::FieldElement<typename X::value_type>) x.requires_grad(true);
}
template <class X>
void settle(const X& x) {
  if (x.has_grad()) shardwise::settle_gradients({{"x", shardwise::dtype_of<typename X::value_type>, x.impl()}});
}

/// `expected`: the placements of the result, as "S(0)R".
template <class... Places, class Mesh, class F, class... X>
void check_sharded(const Mesh& mesh, const std::string& expected, F f, const X&... inputs) {
  using namespace shardwise;
  INFO("result ", expected);
  std::tuple<X...> dense{clone(inputs)...};
  auto placed = std::make_tuple(place(Places(), inputs, mesh)...);
  std::apply([](auto&... x) { (want_gradient(x), ...); }, dense);
  std::apply([](auto&... x) { (want_gradient(x), ...); }, placed);
  const auto y = std::apply(f, dense);
  CommDebugMode comm;
  const auto z = std::apply(f, placed);
  CHECK(comm.total_count() == 0);
  CHECK(detail::to_string(z.placements) == expected);
  check_close(detach(z).full_tensor(), detach(y));
  if (!y.requires_grad()) return;

  const auto g = values<typename std::remove_cvref_t<decltype(y)>::value_type>(y.shape(), 77);
  backward(y, g);
  comm.reset();
  backward(z, gradient_of(z, g));
  CHECK(comm.total_count() == 0);
  int number = 0;
  const auto compare = [&](const auto& a, const auto& b) {
    INFO("gradient of input ", ++number);
    if constexpr (FieldElement<typename std::remove_cvref_t<decltype(a)>::value_type>) {
      if (!a.has_grad()) return;
      REQUIRE(b.has_grad());
      settle(b);
      auto grad = clone(b.grad().full_tensor());
      for (std::int64_t i = 0; i < grad.size(); ++i) grad.data()[i] *= averaged_over(b);
      check_close(grad, a.grad());
    }
  };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (compare(std::get<I>(dense), std::get<I>(placed)), ...);
  }(std::index_sequence_for<X...>());
}

}  // namespace test
