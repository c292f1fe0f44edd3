// cast: the same values in another element type, with its placement rule and its gradient. Layer: ops.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include <shardwise/ops/rules.hpp>

namespace shardwise {

namespace detail {

// 16-bit types by way of float; of a complex number that becomes real, the real part.
template <class U, class T>
U convert_element(T x) {
  if constexpr (is_complex<T> && is_complex<U>) {
    using Part = typename U::value_type;
    return U(static_cast<Part>(x.real()), static_cast<Part>(x.imag()));
  } else if constexpr (is_complex<T>) {
    return convert_element<U>(x.real());
  } else if constexpr (is_complex<U>) {
    return U(convert_element<typename U::value_type>(x));
  } else {
    return static_cast<U>(static_cast<Accumulator<U>>(static_cast<Accumulator<T>>(x)));
  }
}

template <class T, class U>
void convert_elements(const T* from, U* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = convert_element<U>(from[i]);
}

// The gradient has the element type of its value: it is converted back.
template <class T, class U, class Space>
struct CastNode final : Node {
  explicit CastNode(std::int64_t n) : Node("cast"), count(n) {}
  void backward(GradSlot& out) override {
    Buffer dx = Space::allocated(static_cast<std::size_t>(count) * sizeof(T));
    if constexpr (is_host<Space>)
      convert_elements(out.grad.as<const U>(), dx.as<T>(), count);
    else
      typename Space::Compute(out.grad).cast(dtype_of<U>, out.grad.data(), dtype_of<T>, dx.data(), count);
    accumulate(*inputs[0], std::move(dx), out.pending);
  }
  std::int64_t count;
};

template <class L, class T, class U>
inline constexpr bool may_cast =
    std::is_integral_v<T> || !std::is_integral_v<U> || rule_for_each_axis(layout_traits<L>::placements, value_rule).ok;

}  // namespace detail

/// The same values as elements of type U, rounded to nearest (to integers: towards zero; what U cannot hold is not defined);
/// x itself where it has that type. So the element type of a collective is chosen: `redistribute<Replicate>(cast<bfloat16>(x))`
/// moves half the bytes, forward and backward.
///
/// The placement stays; a pending reduction is cast term by term, so not to integers. Gradient: that of the result, in x's
/// element type; where T or U has no gradients, nothing is recorded. PyTorch: `Tensor.to(dtype)`.
template <Element U, Element T, std::size_t R, class L>
BasicTensor<U, R, L> cast(const BasicTensor<T, R, L>& x) {
  static_assert(!is_complex<T> || is_complex<U>,
                "shardwise::cast: [O26] a complex number is not a real one; choose a complex element type");
  static_assert(detail::may_cast<L, T, U>,
                "shardwise::cast: [O27] the terms of a pending reduction are not rounded to integers one by one; "
                "redistribute<Replicate>(x) or redistribute<Shard<d>>(x) first");
  if constexpr (std::is_same_v<T, U>) {
    return x;
  } else if constexpr ((!is_complex<T> || is_complex<U>) && detail::may_cast<L, T, U>) {
    auto y = detail::make_tensor<U, R, L>(x.impl()->global, x.mesh_state());
    detail::inherit_origin(y, x);
    if constexpr (detail::on_host<L>)
      detail::convert_elements(x.data(), y.data(), y.size());
    else
      typename detail::space_of<L>::Compute(x.impl()->buffer)
          .cast(dtype_of<T>, x.device_data(), dtype_of<U>, y.device_data(), y.size());
    if constexpr (FieldElement<T> && FieldElement<U>)
      if (detail::wants_grad(x)) {
        auto node = detail::make_node<detail::CastNode<T, U, detail::space_of<L>>>(y.size());
        node->inputs.push_back(x.impl()->slot);
        detail::record(y, std::move(node));
      }
    return y;
  } else {
    return BasicTensor<U, R, L>();
  }
}

}  // namespace shardwise
