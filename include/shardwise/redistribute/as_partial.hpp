// as_partial: a value that every rank holds, as the terms of a pending reduction. Local. Layer: redistribute.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/reduce.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tape/tape.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

// What changes no value that it is reduced with: 0, 1, the least or the largest value.
template <class T>
T neutral_element(ReduceOp op) {
  if constexpr (std::is_same_v<T, half> || std::is_same_v<T, bfloat16>) {
    return static_cast<T>(neutral_element<float>(op));
  } else if constexpr (std::is_arithmetic_v<T>) {
    using Limits = std::numeric_limits<T>;
    if (op == ReduceOp::max) return Limits::has_infinity ? static_cast<T>(-Limits::infinity()) : Limits::lowest();
    if (op == ReduceOp::min) return Limits::has_infinity ? Limits::infinity() : Limits::max();
    return static_cast<T>(op == ReduceOp::product ? 1 : 0);
  } else {
    return T(op == ReduceOp::product ? 1 : 0);
  }
}

// A template, so that who never calls it compiles none of it.
template <class Type>
void fill_neutral(Type dtype, ReduceOp op, void* out, std::int64_t n) {
  visit_dtype(dtype, [&]<class T>(T) {
    const T value = neutral_element<T>(op);
    T* to = static_cast<T*>(out);
    for (std::int64_t i = 0; i < n; ++i) to[i] = value;
  });
}

template <class Type>
void multiply_by(Type dtype, void* data, std::int64_t n, std::int64_t by) {
  visit_dtype(dtype, [&]<class T>(T) {
    if constexpr (!std::is_integral_v<T>) {  // integers have no gradient
      T* p = static_cast<T*>(data);
      const T factor = static_cast<T>(static_cast<int>(by));
      for (std::int64_t i = 0; i < n; ++i) p[i] = static_cast<T>(p[i] * factor);
    }
  });
}

// The gradient of a term is that of the value; each of k averaged terms has a k-th of it.
template <bool on_host>
struct AsPartialNode final : Node {
  explicit AsPartialNode(std::int64_t terms) : Node("as_partial"), averaged(terms) {}

  void backward(GradSlot& out) override {
    GradSlot& slot = *inputs[0];
    Buffer grad = std::move(out.grad);
    if constexpr (!on_host) {
      grad = DeviceExecutor<on_host>::multiplied(slot.dtype, std::move(grad), slot.count, averaged);
    } else if (averaged != 1) {
      if (!grad.exclusive()) {
        const std::size_t bytes = static_cast<std::size_t>(slot.count) * size_of(slot.dtype);
        Buffer own(bytes);
        if (bytes > 0) std::memcpy(own.data(), grad.data(), bytes);
        grad = std::move(own);
      }
      multiply_by(slot.dtype, grad.data(), slot.count, averaged);
    }
    accumulate(slot, std::move(grad), out.pending);
  }

  std::int64_t averaged;
};

// The placements of X with Partial<Op> on the axes of `set`.
template <class X, ReduceOp Op>
constexpr auto terms_on(std::uint32_t set) {
  auto list = X::placements;
  for (std::size_t a = 0; a < list.size(); ++a)
    if ((set >> a & 1u) != 0) list[a] = partial_value(Op);
  return list;
}

template <std::size_t N>
constexpr bool terms_may_be_made(const PlacementList<N>& from, const PlacementList<N>& to) {
  for (std::size_t a = 0; a < N; ++a)
    if (from[a] != to[a] && !from[a].is_replicate()) return false;
  return true;
}

template <ReduceOp Op, std::uint32_t Set, class X>
auto as_partial_on(const X& x) {
  using T = typename X::value_type;
  using Mesh = typename X::Mesh;
  constexpr auto list = terms_on<X, Op>(Set);
  static_assert(
      terms_may_be_made(X::placements, list),
      "shardwise::as_partial: [V1] terms are made of what every rank of the axis holds; redistribute the axis to "
      "Replicate first, or say from_local<Partial<Op>>(x.to_local(), mesh) where every rank's part is a term");
  static_assert(partials_mix(list),
                "shardwise::as_partial: [V2] pending reductions of one tensor are alike; only Sum and Avg mix");
  static_assert(reducible<T>(Op), "shardwise::as_partial: [V3] complex numbers have no maximum and no minimum");
  if constexpr (terms_may_be_made(X::placements, list) && partials_mix(list) && reducible<T>(Op)) {
    using Y = BasicTensor<T, X::rank, typename distributed_of<Mesh, list>::type>;
    const Mesh& mesh = x.mesh();
    bool keeps = true;  // the value, or the neutral element
    std::int64_t averaged = 1;
    for (std::size_t a = 0; a < Mesh::ndim; ++a) {
      if (X::placements[a] == list[a]) continue;
      if (Op == ReduceOp::avg)
        averaged *= mesh.shape()[a];
      else if (mesh.is_member() && mesh.grid().coordinate[a] != 0)
        keeps = false;
    }
    Y y;
    if (Op == ReduceOp::avg) {
      y = share_tensor<T, X::rank, typename Y::layout_type>(x.impl()->buffer, x.impl()->global, x.impl()->local, mesh);
    } else {
      y = make_tensor<T, X::rank, typename Y::layout_type>(x.impl()->global, mesh);
      if constexpr (!mesh_on_host<Mesh>)
        keeps ? DeviceExecutor<mesh_on_host<Mesh>>::copy(x, y)
              : DeviceExecutor<mesh_on_host<Mesh>>::fill(y, neutral_element<T>(Op));
      else if (!keeps)
        fill_neutral(dtype_of<T>, Op, y.data(), y.size());
      else if (y.bytes() > 0)
        std::memcpy(y.data(), x.data(), y.bytes());
    }
    if (wants_grad(x)) {
      SHARDWISE_REQUIRE(
          has_gradient(list),
          "shardwise::as_partial: a pending maximum, minimum or product has no gradient; detach(x) or use NoGrad");
      auto node = make_node<AsPartialNode<mesh_on_host<Mesh>>>(averaged);
      node->inputs.push_back(x.impl()->slot);
      record(y, std::move(node));
    }
    return y;
  } else {
    return x;
  }
}

}  // namespace detail

/// A value as the terms of a reduction that is pending on every axis of the mesh: `as_partial<Max>(x)`.
///
/// The rank whose coordinates are all 0 keeps the value, the others get what changes nothing: 0 (Sum), 1 (Product), the least (Max) or
/// largest (Min) value of the type, infinities where it has them. Avg: every rank's term is the value; its elements are shared.
/// Moves: nothing. Needs: Replicate, or this Partial already, on every axis. Gives: Partial<Op> there.
/// Gradient: of Sum and Avg that of the value, pending where it arrives so; of the others an error.
/// Ranks: any. Throws: Error where the gradient of a Max, Min or Product would be recorded.
template <ReduceOpTag Op, class T, std::size_t R, class Mesh, class... From>
auto as_partial(const BasicTensor<T, R, Distributed<Mesh, From...>>& x) {
  return detail::as_partial_on<Op::op, (1u << Mesh::ndim) - 1u>(x);
}

/// The same on one axis, the others as they are: `as_partial<On<"tp", Partial<Max>>>(x)`.
template <class OnAxis, class T, std::size_t R, class Mesh, class... From>
  requires(detail::is_on<OnAxis>)
auto as_partial(const BasicTensor<T, R, Distributed<Mesh, From...>>& x) {
  constexpr detail::PlacementValue target = placement_value<typename OnAxis::placement>;
  static_assert(
      target.is_partial(),
      "shardwise::as_partial: [V4] the placement is a Partial; for others say redistribute<On<\"axis\", P>>(x)");
  if constexpr (target.is_partial())
    return detail::as_partial_on<target.op, 1u << Mesh::template index<OnAxis::axis>()>(x);
}

}  // namespace shardwise
