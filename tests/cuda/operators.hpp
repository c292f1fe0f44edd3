// What tests of operators on a device share: one function on the host and on a device, with the same inputs: values and gradients.
#pragma once

#include <tuple>
#include <type_traits>
#include <vector>

#include <shardwise/device/tensor.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/tensor/random.hpp>

#include "cuda/device.hpp"

namespace test {

using shardwise::Cuda;
using shardwise::Element;
using shardwise::FieldElement;
using shardwise::Host;
using shardwise::Tensor;

template <class Space, Element T, std::size_t R>
Tensor<T, R, Space> brought(const Tensor<T, R>& x) {
  if constexpr (std::is_same_v<Space, Host>)
    return clone(x);
  else
    return to_device(x);
}
template <Element T, std::size_t R>
const Tensor<T, R>& home(const Tensor<T, R>& x) {
  return x;
}
template <Element T, std::size_t R>
Tensor<T, R> home(const Tensor<T, R, Cuda>& x) {
  return to_host(x);
}

template <Element T, std::size_t R>
std::vector<T> values(const Tensor<T, R>& x) {
  return std::vector<T>(x.data(), x.data() + x.size());
}

/// A tensor of random elements from a range, equal for equal seeds.
template <Element T, std::size_t R>
Tensor<T, R> random_tensor(std::uint64_t seed, const std::int64_t (&shape)[R], double low = -2, double high = 2) {
  Random random(seed);
  Tensor<T, R> x(shardwise::detail::to_shape(shape));
  const std::vector<T> drawn = random_values<T>(random, x.size(), low, high);
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = drawn[static_cast<std::size_t>(i)];
  return x;
}

// f(inputs...) in a memory space; its value, and after backward the gradients of the inputs that have one, all on the host.
template <class Space, class F, class... X>
auto run_in(F f, const X&... inputs) {
  auto there = std::make_tuple(brought<Space>(inputs)...);
  std::apply(
      [](auto&... x) {
        const auto wanted = []<class Y>(Y& y) {
          if constexpr (FieldElement<typename Y::value_type>) y.requires_grad(true);
        };
        (wanted(x), ...);
      },
      there);
  shardwise::manual_seed(7);
  auto y = std::apply([&](auto&... x) { return f(x...); }, there);
  using T = typename decltype(y)::value_type;
  if constexpr (FieldElement<T>) {
    if (y.requires_grad()) {
      Random random(99);
      auto gradient = clone(home(y));
      const std::vector<T> drawn = random_values<T>(random, gradient.size());
      for (std::int64_t i = 0; i < gradient.size(); ++i) gradient.data()[i] = drawn[static_cast<std::size_t>(i)];
      backward(y, brought<Space>(gradient));
    }
  }
  const auto gradient_of = []<class Y>(const Y& x) {
    using E = typename Y::value_type;
    if constexpr (FieldElement<E>)
      return x.has_grad() ? values(home(x.grad())) : std::vector<E>();
    else
      return std::vector<E>();
  };
  return std::tuple_cat(std::make_tuple(values(home(y))),
                        std::apply([&](const auto&... x) { return std::make_tuple(gradient_of(x)...); }, there));
}

/// f gives on a device what it gives on the host, up to `steps` roundings; its gradients too.
template <class F, class... X>
void check_on_device(const char* what, double steps, F f, const X&... inputs) {
  INFO(what);
  const auto want = run_in<Host>(f, inputs...);
  const auto got = run_in<Cuda>(f, inputs...);
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const auto check = [&](std::size_t i, const auto& g, const auto& w) {
      INFO("result, or gradient of input ", i);
      CHECK(near(g, w, steps));
    };
    (check(I, std::get<I>(got), std::get<I>(want)), ...);
  }(std::make_index_sequence<sizeof...(X) + 1>());
}

}  // namespace test
