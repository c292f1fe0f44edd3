// The six styles of PyTorch's tensor-parallel API: where a layer's parameters go, and how its input and output are wrapped.
// Aggregates, so that a plan reads `ColwiseParallel{.output_layouts = Replicate{}}`. Layer: parallel.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <shardwise/nn/scope.hpp>
#include <shardwise/parallel/layouts.hpp>
#include <shardwise/redistribute/local.hpp>

namespace shardwise {

namespace detail {

template <class L>
concept HasLayerKind = requires { typename L::layer_kind; };

template <class L, class Kind>
constexpr bool layer_is() {
  if constexpr (HasLayerKind<L>)
    return std::is_same_v<typename L::layer_kind, Kind>;
  else
    return false;
}

// Every positional value from its declared to its desired layout.
template <class Declared, class Desired, bool LocalResult, class Mesh, class... X>
auto prepare_all(const Mesh& mesh, const X&... x) {
  const std::tuple<const X&...> values(x...);
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return std::tuple(
        prepared<std::tuple_element_t<I, layout_tuple<Declared>>, std::tuple_element_t<I, layout_tuple<Desired>>,
                 LocalResult>(std::get<I>(values), mesh)...);
  }(std::index_sequence_for<X...>());
}

template <class X>
inline constexpr bool is_tuple = false;
template <class... X>
inline constexpr bool is_tuple<std::tuple<X...>> = true;

// Outputs are one value or a tuple of them.
template <class Y>
struct outputs {
  static constexpr std::size_t count = 1;
  template <class Layouts>
  static constexpr bool fit = layouts_stand_for_tensors<Layouts, Y>;
};
template <class... Y>
struct outputs<std::tuple<Y...>> {
  static constexpr std::size_t count = sizeof...(Y);
  template <class Layouts>
  static constexpr bool fit = layouts_stand_for_tensors<Layouts, Y...>;
};
template <class Declared, class Desired, bool LocalResult, class Mesh, class Y>
auto prepare_outputs(const Mesh& mesh, const Y& y) {
  constexpr bool several = is_tuple<Y>;
  constexpr bool as_many = outputs<Y>::count == layout_count<Declared>;
  static_assert(
      as_many,
      "shardwise::PrepareModuleOutput: [Y4] one layout per output; write None{} for those that pass as they are");
  constexpr bool tensors = outputs<Y>::template fit<layout_tuple<Declared>>;
  static_assert(
      tensors,
      "shardwise::PrepareModuleOutput: [Y1] a layout stands for a value that is no tensor; write None{} for it");
  if constexpr (!as_many || !tensors)
    return y;
  else if constexpr (several)
    return std::apply(
        [&](const auto&... values) { return prepare_all<Declared, Desired, LocalResult>(mesh, values...); }, y);
  else
    return std::get<0>(prepare_all<Declared, Desired, LocalResult>(mesh, y));
}

template <class Declared, class Desired, bool LocalResult, class Mesh, class... X>
auto prepare_inputs(const Mesh& mesh, const X&... x) {
  static_assert(
      sizeof...(X) == layout_count<Declared>,
      "shardwise::PrepareModuleInput: [Y5] one layout per positional input; write None{} for those that pass as they are");
  constexpr bool tensors = layouts_stand_for_tensors<layout_tuple<Declared>, X...>;
  static_assert(
      tensors,
      "shardwise::PrepareModuleInput: [Y1] a layout stands for a value that is no tensor; write None{} for it");
  if constexpr (sizeof...(X) == layout_count<Declared> && tensors)
    return prepare_all<Declared, Desired, LocalResult>(mesh, x...);
  else
    return std::tuple<X...>(x...);
}

}  // namespace detail

/// Columns of a linear layer's weight (rows as stored), or features of an embedding, over the axis.
///
/// Linear: weight and bias Shard<0>; embedding: weight Shard<1>. The input is made Replicate, the output Shard<-1> by nature.
/// A plain input is taken as `input_layouts` says. PyTorch: `ColwiseParallel`.
template <class In = Replicate, class Out = Shard<-1>>
struct ColwiseParallel {
  In input_layouts{};
  Out output_layouts{};
  bool use_local_output = true;

  static_assert(
      Placement<In> && Placement<Out>,
      "shardwise::ColwiseParallel: [Y6] a layout of this style is one placement, such as Replicate{} or Shard<0>{}");
  static constexpr bool shards_parameters = true;
  template <class Kind>
  static constexpr bool supports = std::is_same_v<Kind, LinearLayer> || std::is_same_v<Kind, EmbeddingLayer>;
  template <class Kind>
  constexpr detail::PlacementValue parameter(const Name&, std::size_t) const {
    return std::is_same_v<Kind, EmbeddingLayer> ? place<Shard<1>> : place<Shard<0>>;
  }

  template <auto self, class L, class Mesh, class X>
  static auto prepare_input(const L&, const Mesh& mesh, const X& x) {
    return std::tuple(redistribute<Replicate>(detail::as_distributed<In>(x, mesh)));
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh&, const Y& y) {
    return detail::given_as<Out, self.use_local_output>(y);
  }
};

/// Rows of a linear layer's weight (columns as stored), or the vocabulary of an embedding, over the axis.
///
/// Linear: weight Shard<1>, bias Replicate, input made Shard<-1>; embedding: weight Shard<0>, input made Replicate. The output is a
/// pending sum by nature. The features of a plain sharded input are counted from the weight, so that sizes need not divide.
/// PyTorch: `RowwiseParallel`.
template <class In = Shard<-1>, class Out = Replicate>
struct RowwiseParallel {
  In input_layouts{};
  Out output_layouts{};
  bool use_local_output = true;

  static_assert(
      Placement<In> && Placement<Out>,
      "shardwise::RowwiseParallel: [Y6] a layout of this style is one placement, such as Replicate{} or Shard<0>{}");
  static constexpr bool shards_parameters = true;
  template <class Kind>
  static constexpr bool supports = std::is_same_v<Kind, LinearLayer> || std::is_same_v<Kind, EmbeddingLayer>;
  template <class Kind>
  constexpr detail::PlacementValue parameter(const Name& name, std::size_t) const {
    if (std::is_same_v<Kind, EmbeddingLayer>) return place<Shard<0>>;
    return name == Name("bias") ? place<Replicate> : place<Shard<1>>;
  }

  template <auto self, class L, class Mesh, class X>
  static auto prepare_input(const L& layer, const Mesh& mesh, const X& x) {
    if constexpr (detail::layer_is<L, EmbeddingLayer>()) {
      return std::tuple(redistribute<Replicate>(detail::as_distributed<In>(x, mesh)));
    } else if constexpr (X::distributed) {
      return std::tuple(redistribute<Shard<-1>>(x));
    } else if constexpr (std::is_same_v<Normalized<In, X::rank>, Normalized<Shard<-1>, X::rank>>) {
      auto shape = x.shape();
      shape[X::rank - 1] = layer.weight.shape()[1];
      return std::tuple(from_local<In>(x, mesh, {.global_shape = shape}));
    } else {
      return std::tuple(redistribute<Shard<-1>>(from_local<In>(x, mesh)));
    }
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh&, const Y& y) {
    return detail::given_as<Out, self.use_local_output>(y);
  }
};

/// Layers that work on a sequence without mixing its positions (norms, dropout): parameters Replicate, the input Shard<sequence_dim>.
///
/// Gradients of the parameters stay pending until an optimizer step, or `settle_gradients`. A plain input is declared to be a
/// shard, a distributed one is redistributed. PyTorch: `SequenceParallel`.
struct SequenceParallel {
  int sequence_dim = 1;
  bool use_local_output = false;

  static constexpr bool shards_parameters = true;
  template <class Kind>
  static constexpr bool supports = true;
  template <class Kind>
  constexpr detail::PlacementValue parameter(const Name&, std::size_t) const {
    return place<Replicate>;
  }

  template <auto self, class L, class Mesh, class X, class... More>
  static auto prepare_input(const L&, const Mesh& mesh, const X& x, const More&... more) {
    using Sequence = Shard<self.sequence_dim>;
    return std::tuple(redistribute<Sequence>(detail::as_distributed<Sequence>(x, mesh)), more...);
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh&, const Y& y) {
    return detail::as_local_if(y, std::bool_constant<self.use_local_output>{});
  }
};

/// Positional inputs from the layouts they have to those that the module wants, one each.
/// PyTorch: `PrepareModuleInput` (keyword arguments do not exist here; list all inputs by position).
template <class In = None, class Desired = None>
struct PrepareModuleInput {
  In input_layouts{};
  Desired desired_input_layouts{};
  bool use_local_output = false;

  static_assert(detail::layout_count<In> == detail::layout_count<Desired>,
                "shardwise::PrepareModuleInput: [Y2] input_layouts and desired_input_layouts have the same length");
  static constexpr bool shards_parameters = false;

  template <auto self, class L, class Mesh, class... X>
  static auto prepare_input(const L&, const Mesh& mesh, const X&... x) {
    return detail::prepare_inputs<In, Desired, self.use_local_output>(mesh, x...);
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh&, const Y& y) {
    return y;
  }
};

/// Outputs from the layouts they have to those that are wanted, one each.
/// PyTorch: `PrepareModuleOutput`.
template <class Out = None, class Desired = None>
struct PrepareModuleOutput {
  Out output_layouts{};
  Desired desired_output_layouts{};
  bool use_local_output = true;

  static_assert(detail::layout_count<Out> == detail::layout_count<Desired>,
                "shardwise::PrepareModuleOutput: [Y3] output_layouts and desired_output_layouts have the same length");
  static constexpr bool shards_parameters = false;

  template <auto self, class L, class Mesh, class... X>
  static auto prepare_input(const L&, const Mesh&, const X&... x) {
    return std::tuple<X...>(x...);
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh& mesh, const Y& y) {
    return detail::prepare_outputs<Out, Desired, self.use_local_output>(mesh, y);
  }
};

/// Both of them. PyTorch: `PrepareModuleInputOutput`.
template <class In = None, class DesiredIn = None, class Out = None, class DesiredOut = None>
struct PrepareModuleInputOutput {
  In input_layouts{};
  DesiredIn desired_input_layouts{};
  bool use_local_input = false;
  Out output_layouts{};
  DesiredOut desired_output_layouts{};
  bool use_local_output = true;

  static_assert(
      detail::layout_count<In> == detail::layout_count<DesiredIn>,
      "shardwise::PrepareModuleInputOutput: [Y2] input_layouts and desired_input_layouts have the same length");
  static_assert(
      detail::layout_count<Out> == detail::layout_count<DesiredOut>,
      "shardwise::PrepareModuleInputOutput: [Y3] output_layouts and desired_output_layouts have the same length");
  static constexpr bool shards_parameters = false;

  template <auto self, class L, class Mesh, class... X>
  static auto prepare_input(const L&, const Mesh& mesh, const X&... x) {
    return detail::prepare_inputs<In, DesiredIn, self.use_local_input>(mesh, x...);
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh& mesh, const Y& y) {
    return detail::prepare_outputs<Out, DesiredOut, self.use_local_output>(mesh, y);
  }
};

}  // namespace shardwise
