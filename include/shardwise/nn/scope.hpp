// Scopes: where a module stands: on one device, or on a mesh with the rest of the plan below it. And the protocol
// between layers and styles. Layer: nn.
#pragma once

#include <concepts>
#include <type_traits>

#include <shardwise/base/dtype.hpp>
#include <shardwise/placement/placement.hpp>
#include <shardwise/plan/plan.hpp>
#include <shardwise/tensor/layout.hpp>

namespace shardwise {

/// One device, element type T; its parameters lie in `Space` (`to_device(model)` brings those of a model to a GPU).
template <Element T, class Space = Host>
struct Unsharded {
  using value_type = T;
};

/// On a mesh, with the rules of the plan that go on below this module. Two layers with the same remaining rules are the
/// same type.
template <auto plan, class Mesh, Element T = float>
struct Parallel {
  using value_type = T;
};

/// What a layer is to a style. A layer says so with the fourth argument of its `Param`s and with
/// `using layer_kind`; your own kind is any type that your own style knows.
struct LinearLayer {};  ///< weight (out, in), bias (out)
struct EmbeddingLayer {};  ///< weight (vocabulary, features)
struct OtherLayer {};  ///< parameters that only a style for any layer can place

/// What `parallelize_module` needs of a style: whether it places parameters, and where, by layer kind and parameter name.
///
/// A style is a structural type with
///   `static constexpr bool shards_parameters;`
///   `template <class Kind> static constexpr bool supports;`                           (with shards_parameters)
///   `template <class Kind> constexpr auto parameter(Name, std::size_t rank) const;`    (a placement value, see `place<P>`)
///   `template <auto self, class L, class Mesh, class... X> static auto prepare_input(const L&, const Mesh&, const X&...);`
///   `template <auto self, class L, class Mesh, class Y> static auto prepare_output(const L&, const Mesh&, const Y&);`
/// The first gives a tuple of the inputs; `self` is the style as the plan has it, so that its fields decide at compile time.
template <class S>
concept ParallelStyle = requires {
  { S::shards_parameters } -> std::same_as<const bool&>;
} && std::is_trivially_copyable_v<S>;

/// The value of a placement type, for `ParallelStyle::parameter`.
template <Placement P>
inline constexpr auto place = placement_value<P>;

namespace detail {

template <class Scope>
struct scope_traits;
template <class T, class S>
struct scope_traits<Unsharded<T, S>> {
  static constexpr bool parallel = false;
  using Space = S;
  template <Name>
  using Below = Unsharded<T, S>;
  using BelowIndices = Unsharded<T, S>;
  struct Mesh {};
  static constexpr Plan<> own{};
};
template <auto plan, class M, class T>
struct scope_traits<Parallel<plan, M, T>> {
  static constexpr bool parallel = true;
  using Mesh = M;
  template <Name child>
  using Below = Parallel<below<plan, child>, M, T>;
  using BelowIndices = Parallel<below_indices<plan>, M, T>;
  static constexpr auto own = own_rules<plan>;
};

template <class S>
inline constexpr bool is_scope = false;
template <class T, class S>
inline constexpr bool is_scope<Unsharded<T, S>> = true;
template <auto plan, class M, class T>
inline constexpr bool is_scope<Parallel<plan, M, T>> = true;

// The style among own rules that places parameters; `void` where there is none.
template <auto own, std::size_t I = 0>
constexpr std::size_t parameter_style_index() {
  if constexpr (I == own.size)
    return I;
  else if constexpr (std::remove_cvref_t<decltype(own.template get<I>().style)>::shards_parameters)
    return I;
  else
    return parameter_style_index<own, I + 1>();
}

template <class Module>
struct module_traits;
template <template <class> class M, class S>
struct module_traits<M<S>> {
  using Scope = S;
  template <class Other>
  using Rebind = M<Other>;
};

}  // namespace detail
}  // namespace shardwise
