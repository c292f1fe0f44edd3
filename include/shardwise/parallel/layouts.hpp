// Layouts: what a style says of several inputs or outputs; None passes one through. Layer: parallel.
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include <shardwise/placement/placement.hpp>
#include <shardwise/redistribute/local.hpp>

namespace shardwise {

/// No layout: this input or output passes as it is. PyTorch: `None` in a tuple of layouts.
struct None {
  friend constexpr bool operator==(const None&, const None&) = default;
};

/// One layout per positional input or output: `Layouts{Shard<0>{}, None{}}`.
template <class... L>
struct Layouts {
  constexpr Layouts() = default;
  constexpr explicit(sizeof...(L) == 0) Layouts(L...)
    requires(sizeof...(L) > 0)
  {}
  friend constexpr bool operator==(const Layouts&, const Layouts&) = default;
};

namespace detail {

template <class X>
concept is_tensor_like = requires { typename X::layout_type; };
template <class X>
constexpr bool distributed_tensor() {
  if constexpr (is_tensor_like<X>)
    return X::distributed;
  else
    return false;
}
template <class X>
inline constexpr bool is_distributed = distributed_tensor<X>();

// A single layout is a list of one.
template <class L>
struct layout_list {
  using type = std::tuple<L>;
};
template <class... L>
struct layout_list<Layouts<L...>> {
  using type = std::tuple<L...>;
};
template <class L>
using layout_tuple = typename layout_list<L>::type;
template <class L>
inline constexpr std::size_t layout_count = std::tuple_size_v<layout_tuple<L>>;

template <class L, class X>
inline constexpr bool layout_stands_for_a_tensor = std::is_same_v<L, None> || is_tensor_like<X>;

// Whether layouts, one per value, stand for tensors only.
template <class Layouts, class... X>
inline constexpr bool layouts_stand_for_tensors = true;
template <class... L, class... X>
  requires(sizeof...(L) == sizeof...(X))
inline constexpr bool layouts_stand_for_tensors<std::tuple<L...>, X...> = (layout_stands_for_a_tensor<L, X> && ...);

// A plain tensor is taken at the word of the plan; a distributed one knows where it lies.
template <class Declared, class X, class Mesh>
auto as_distributed(const X& x, const Mesh& mesh) {
  static_assert(is_tensor_like<X>,
                "shardwise::parallelize_module: [Y7] a layer with a style takes a tensor; of several inputs say which "
                "are, in PrepareModuleInput{.input_layouts = Layouts{...}}");
  if constexpr (!is_tensor_like<X> || is_distributed<X>) {
    return x;
  } else {
    constexpr bool in_range = shard_dim_in_range<Declared, X::rank>;
    static_assert(in_range, "shardwise::parallelize_module: [Y8] the shard dimension of a layout exists in the tensor");
    if constexpr (in_range)
      return from_local<Declared>(x, mesh);
    else
      return x;
  }
}

template <class X>
auto as_local_if(const X& x, auto wanted) {
  if constexpr (decltype(wanted)::value && is_distributed<X>)
    return x.to_local();
  else
    return x;
}

// What a layer gives, in the layout that its style says.
template <class Layout, bool LocalResult, class Y>
auto given_as(const Y& y) {
  constexpr bool in_range = shard_dim_in_range<Layout, Y::rank>;
  static_assert(in_range, "shardwise::parallelize_module: [Y8] the shard dimension of a layout exists in the tensor");
  if constexpr (in_range)
    return as_local_if(redistribute<Layout>(y), std::bool_constant<LocalResult>{});
  else
    return y;
}

// From the declared layout of a value to the desired one.
template <class Declared, class Desired, bool LocalResult, class X, class Mesh>
auto prepared(const X& x, const Mesh& mesh) {
  if constexpr (std::is_same_v<Declared, None>) {
    return x;
  } else {
    auto y = as_distributed<Declared>(x, mesh);
    if constexpr (std::is_same_v<Desired, None>)
      return as_local_if(y, std::bool_constant<LocalResult>{});
    else
      return as_local_if(redistribute<Desired>(y), std::bool_constant<LocalResult>{});
  }
}

}  // namespace detail
}  // namespace shardwise
