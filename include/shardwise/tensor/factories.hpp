// Tensors from nothing: zeros, ones, full, arange, plain or on a mesh; equal and allclose. Layer: tensor.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>

#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

template <std::size_t R>
constexpr Shape<R> to_shape(const std::int64_t (&shape)[R]) {
  Shape<R> s{};
  for (std::size_t i = 0; i < R; ++i) s[i] = shape[i];
  return s;
}

template <class T, std::size_t R>
Tensor<T, R> make_plain(const std::int64_t (&shape)[R]) {
  check_sizes(Extents(to_shape(shape)));
  return make_tensor<T, R, Local<Host>>(Extents(to_shape(shape)), typename MeshHandle<Local<Host>>::Mesh{});
}

// A new tensor on a mesh, elements not set; no placement given: replicated on every axis.
template <class T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto make_placed(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape) {
  using Mesh = DeviceMesh<Comm, Axes...>;
  static_assert(sizeof...(P) == Mesh::ndim,
                "shardwise::zeros: [P1] one placement per mesh axis: zeros<float, Shard<0>>(mesh, shape)");
  static_assert((shard_dim_in_range<P, R> && ...),
                "shardwise::zeros: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  check_sizes(Extents(shape));
  return make_tensor<T, R, Distributed<Mesh, Normalized<P, R>...>>(Extents(shape), mesh);
}

template <class X>
X fill(X x, typename X::value_type value) {
  for (const auto& p : X::placements)
    SHARDWISE_REQUIRE(
        !p.is_partial() || value == static_cast<typename X::value_type>(0),
        "shardwise::full: a pending reduction has no single value per element; use from_local<Partial<>>(term, mesh)");
  set_elements(x, value);
  return x;
}

}  // namespace detail

/// Every element `value`.
template <Element T, std::size_t R>
Tensor<T, R> full(const std::int64_t (&shape)[R], T value) {
  return detail::fill(detail::make_plain<T, R>(shape), value);
}
template <Element T, std::size_t R>
Tensor<T, R> full(const Shape<R>& shape, T value) {
  return detail::fill(Tensor<T, R>(shape), value);
}
template <Element T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto full(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape, T value) {
  return detail::fill(detail::make_placed<T, P...>(mesh, shape), value);
}
template <Element T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto full(const DeviceMesh<Comm, Axes...>& mesh, const std::int64_t (&shape)[R], T value) {
  return full<T, P...>(mesh, detail::to_shape(shape), value);
}

/// Every element 0; `zeros<float, Shard<0>>(mesh, {n, m})` on a mesh. `zeros<float>(Shape<0>{})` is a rank-0 tensor.
template <Element T, std::size_t R>
Tensor<T, R> zeros(const std::int64_t (&shape)[R]) {
  return Tensor<T, R>(detail::to_shape(shape));
}
template <Element T, std::size_t R>
Tensor<T, R> zeros(const Shape<R>& shape) {
  return Tensor<T, R>(shape);
}
template <Element T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto zeros(const DeviceMesh<Comm, Axes...>& mesh, const std::int64_t (&shape)[R]) {
  return detail::fill(detail::make_placed<T, P...>(mesh, detail::to_shape(shape)), static_cast<T>(0));
}
template <Element T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto zeros(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape) {
  return detail::fill(detail::make_placed<T, P...>(mesh, shape), static_cast<T>(0));
}

/// Every element 1.
template <Element T, std::size_t R>
Tensor<T, R> ones(const std::int64_t (&shape)[R]) {
  return detail::fill(detail::make_plain<T, R>(shape), static_cast<T>(1));
}
template <Element T, std::size_t R>
Tensor<T, R> ones(const Shape<R>& shape) {
  return detail::fill(Tensor<T, R>(shape), static_cast<T>(1));
}
template <Element T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto ones(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape) {
  return detail::fill(detail::make_placed<T, P...>(mesh, shape), static_cast<T>(1));
}
template <Element T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto ones(const DeviceMesh<Comm, Axes...>& mesh, const std::int64_t (&shape)[R]) {
  return ones<T, P...>(mesh, detail::to_shape(shape));
}

/// 0, 1, 2, ... in row-major order: `arange<float>({2, 3})`, or `arange<float>(n)` for one dimension.
template <Element T, std::size_t R>
Tensor<T, R> arange(const Shape<R>& shape) {
  Tensor<T, R> x(shape);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    if constexpr (is_complex<T>)
      x.data()[i] = T(static_cast<typename T::value_type>(i));
    else
      x.data()[i] = static_cast<T>(static_cast<Accumulator<T>>(i));
  }
  return x;
}
template <Element T, std::size_t R>
Tensor<T, R> arange(const std::int64_t (&shape)[R]) {
  return arange<T>(detail::to_shape(shape));
}
template <Element T, std::integral I>
Tensor<T, 1> arange(I n) {
  return arange<T>(Shape<1>{static_cast<std::int64_t>(n)});
}
/// A rank-0 tensor.
template <Element T>
Tensor<T, 0> scalar(T value) {
  return full<T>(Shape<0>{}, value);
}

/// Same shape and equal elements (NaN equals nothing). Plain tensors only. PyTorch: `torch.equal`.
template <Element T, std::size_t R>
bool equal(const Tensor<T, R>& a, const Tensor<T, R>& b) {
  if (a.shape() != b.shape()) return false;
  for (std::int64_t i = 0; i < a.size(); ++i)
    if (!(a.data()[i] == b.data()[i])) return false;
  return true;
}

/// Nothing: ranks that compare their parts alone would disagree.
template <class A, class B>
  requires(detail::is_tensor<A> && detail::is_tensor<B> && (A::distributed || B::distributed))
bool equal(const A&, const B&) {
  static_assert(
      !A::distributed && !B::distributed,
      "shardwise::equal: [E1] plain tensors are compared: x.full_tensor() is the whole, x.to_local() this rank's part");
  return false;
}

/// Tolerances of `allclose`: |a - b| <= atol + rtol * |b|, PyTorch's defaults.
struct Tolerance {
  double rtol = 1e-5;
  double atol = 1e-8;
  bool equal_nan = false;
};

/// Same shape and |a - b| <= atol + rtol * |b| for every element. PyTorch: `torch.allclose`.
template <Element T, std::size_t R>
bool allclose(const Tensor<T, R>& a, const Tensor<T, R>& b, const Tolerance& tolerance = {}) {
  if (a.shape() != b.shape()) return false;
  const auto close = [&](double x, double y) {
    if (x == y) return true;
    if (x != x || y != y) return tolerance.equal_nan && x != x && y != y;
    return std::fabs(y) <= 1.7976931348623157e308 && std::fabs(x - y) <= tolerance.atol + tolerance.rtol * std::fabs(y);
  };
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const T x = a.data()[i];
    const T y = b.data()[i];
    if constexpr (is_complex<T>) {
      const double distance =
          std::hypot(static_cast<double>(x.real() - y.real()), static_cast<double>(x.imag() - y.imag()));
      const double size = std::hypot(static_cast<double>(y.real()), static_cast<double>(y.imag()));
      if (!(x == y) && !(distance <= tolerance.atol + tolerance.rtol * size)) return false;
    } else if (!close(static_cast<double>(x), static_cast<double>(y))) {
      return false;
    }
  }
  return true;
}

template <class A, class B>
  requires(detail::is_tensor<A> && detail::is_tensor<B> && (A::distributed || B::distributed))
bool allclose(const A&, const B&, const Tolerance& = {}) {
  static_assert(
      !A::distributed && !B::distributed,
      "shardwise::allclose: [E1] plain tensors are compared: x.full_tensor() is the whole, x.to_local() this rank's part");
  return false;
}

}  // namespace shardwise
