// Param: a named parameter of a module. Plain on one device; on a mesh placed as the module's style says. Layer: nn.
#pragma once

#include <string>
#include <utility>

#include <shardwise/nn/scope.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

template <class Scope, Name name, std::size_t R, class Kind>
struct param_tensor {
  using type = Tensor<typename Scope::value_type, R, typename scope_traits<Scope>::Space>;
};

template <class Style, class Kind>
constexpr bool style_supports() {
  return Style::template supports<Kind>;
}

// Where the style of a plan puts a parameter; -1 where no style of the module itself does.
template <auto plan, class Kind>
constexpr std::int64_t parameter_code(const Name& name, std::size_t rank) {
  constexpr auto own = own_rules<plan>;
  constexpr std::size_t index = parameter_style_index<own>();
  if constexpr (index < own.size) {
    using Style = std::remove_cvref_t<decltype(own.template get<index>().style)>;
    if constexpr (style_supports<Style, Kind>())
      return placement_code(
          normalized(own.template get<index>().style.template parameter<Kind>(name, rank), static_cast<int>(rank)));
    else
      return placement_code(replicate_value());
  } else {
    return -1;
  }
}

// The code is an argument of its own: g++ 12 takes types for equal that are computed from the members of a plan.
template <class T, std::size_t R, class Mesh, std::int64_t Code>
struct placed_tensor {
  using type = DTensor<T, R, Mesh, typename placement_of<Code>::type>;
};
template <class T, std::size_t R, class Mesh>
struct placed_tensor<T, R, Mesh, -1> {
  using type = Tensor<T, R, space_on<Mesh>>;
};

template <auto plan, class Mesh, class T, Name name, std::size_t R, class Kind>
struct param_tensor<Parallel<plan, Mesh, T>, name, R, Kind> {
  static constexpr std::int64_t code = parameter_code<plan, Kind>(name, R);
  using type = typename placed_tensor<T, R, Mesh, code>::type;
};

}  // namespace detail

/// A parameter: a tensor of rank R with a name, undefined where the layer goes without it (a bias, say).
///
/// Made of a tensor, it requires a gradient unless its element type has none. `Kind` is what the layer is to a style.
template <class Scope, Name name, std::size_t R, class Kind = OtherLayer>
struct Param : detail::param_tensor<Scope, name, R, Kind>::type {
  using TensorType = typename detail::param_tensor<Scope, name, R, Kind>::type;
  static constexpr Name param_name = name;
  using scope_type = Scope;
  using kind = Kind;
  static constexpr std::size_t dimensions = R;

  Param() = default;
  Param(TensorType tensor) : TensorType(std::move(tensor)) {  // NOLINT: a parameter is a tensor
    if constexpr (FieldElement<typename TensorType::value_type>)
      if (this->defined() && !this->requires_grad()) this->requires_grad(true);
  }
  Param(TensorType tensor, bool wants_gradient) : TensorType(std::move(tensor)) {
    if constexpr (FieldElement<typename TensorType::value_type>)
      if (this->requires_grad() != wants_gradient) this->requires_grad(wants_gradient);
  }
  const TensorType& tensor() const { return *this; }
  TensorType& tensor() { return *this; }
};

namespace detail {
template <class X>
inline constexpr bool is_param = false;
template <class S, Name N, std::size_t R, class K>
inline constexpr bool is_param<Param<S, N, R, K>> = true;
}  // namespace detail

}  // namespace shardwise
