// embedding lookup and dropout, with their placement rules and gradients. Layer: ops.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/ops/kernels/index.hpp>
#include <shardwise/ops/rules.hpp>
#include <shardwise/tensor/random.hpp>

namespace shardwise {

namespace detail {

template <class T, class Space>
struct EmbeddingNode final : Node {
  EmbeddingNode() : Node("embedding") {}
  void backward(GradSlot& out) override {
    Buffer dtable = Space::allocated(static_cast<std::size_t>(count * width) * sizeof(T));
    const auto* rows = index.as<const std::int64_t>();
    if constexpr (is_host<Space>)
      kernels::embedding_backward(out.grad.as<const T>(), rows, n, first, count, width, dtable.as<T>());
    else
      typename Space::Compute(out.grad, index)
          .embedding_backward(dtype_of<T>, out.grad.data(), rows, n, first, count, width, dtable.data());
    accumulate(*inputs[0], std::move(dtable), pending(out.pending));
  }
  Buffer index;
  std::int64_t n = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t width = 0;
  PendingRule pending;
};

// A rank that holds some rows of the table gives zero rows for the others: a pending sum, and no mask to keep
// (PyTorch keeps one in its placement: _MaskPartial).
constexpr AxisRule embedding_rule(PlacementValue table, PlacementValue index, int index_rank) {
  if (table.is_replicate() && index.is_replicate()) return {true, replicate_value()};
  if (table.is_replicate() && index.is_shard()) return {true, index};
  if (table.is_shard(1) && index.is_replicate()) return {true, shard_value(index_rank)};
  if (table.is_shard(0) && index.is_replicate()) return {true, partial_value()};
  return no_rule;
}

template <class W, class I>
constexpr auto embedding_of() {
  if constexpr (same_home<W, I>)
    return rule_for_each_axis(W::placements, I::placements, [](PlacementValue p, PlacementValue q) {
      return embedding_rule(p, q, static_cast<int>(I::rank));
    });
  else
    return PlacementRule<W::placements.size()>{true, W::placements};
}

template <class T, class Space>
struct DropoutNode final : Node {
  DropoutNode(Buffer m, double probability, std::int64_t size)
      : Node("dropout"), mask(std::move(m)), p(probability), n(size) {}
  void backward(GradSlot& out) override {
    Buffer dx = Space::allocated(static_cast<std::size_t>(n) * sizeof(T));
    const auto* kept = mask.as<const std::uint8_t>();
    if constexpr (is_host<Space>)
      kernels::dropout_backward(out.grad.as<const T>(), kept, p, dx.as<T>(), n);
    else
      typename Space::Compute(out.grad, mask).dropout_backward(dtype_of<T>, out.grad.data(), kept, p, dx.data(), n);
    accumulate(*inputs[0], std::move(dx), out.pending);
  }
  Buffer mask;
  double p;
  std::int64_t n;
};

}  // namespace detail

/// Rows of weight (V, D) by index (...): (..., D). PyTorch: `torch.nn.functional.embedding`.
///
/// Placements per axis, as (weight, index) -> result: (R, R) -> R; (R, S(d)) -> S(d); (S1, R) -> S(-1); (S0, R) -> a pending sum, to which
/// each rank gives the rows it holds. Throws `Error` for an index outside the vocabulary, on every rank alike.
template <RealElement T, class LW, std::size_t R, class LI>
auto embedding(const BasicTensor<T, 2, LW>& weight, const BasicTensor<std::int64_t, R, LI>& index) {
  using W = BasicTensor<T, 2, LW>;
  using I = BasicTensor<std::int64_t, R, LI>;
  SHARDWISE_SAME_HOME("embedding", W, I);
  constexpr auto rule = detail::embedding_of<W, I>();
  static_assert(
      rule.ok,
      "shardwise::embedding: [O17] a sharded table takes replicated indices, sharded indices a replicated table; "
      "redistribute one of them");
  using Y = BasicTensor<T, R + 1, typename detail::layout_with<LW, rule>::type>;
  if constexpr (detail::same_home<W, I> && rule.ok) {
    detail::require_same_mesh("shardwise::embedding", weight, index);
    detail::Extents global = index.impl()->global;
    global.rank = static_cast<int>(R) + 1;
    global[static_cast<int>(R)] = weight.impl()->global[1];
    Y y = detail::make_tensor<T, R + 1, typename Y::layout_type>(global, weight.mesh_state());
    const std::int64_t count = weight.impl()->local[0];
    const std::int64_t width = weight.impl()->local[1];
    const std::int64_t first = count == 0 ? 0 : weight.local_offset()[0];
    const std::int64_t vocabulary = weight.impl()->global[0];
    using Space = detail::space_of<LW>;
    if constexpr (detail::is_host<Space>)
      detail::kernels::embedding(weight.data(), first, count, vocabulary, width, index.data(), index.size(), y.data());
    else
      typename Space::Compute(weight.impl()->buffer, index.impl()->buffer)
          .embedding(dtype_of<T>, weight.device_data(), first, count, vocabulary, width, index.device_data(),
                     index.size(), y.device_data());
    if (detail::wants_grad(weight)) {
      auto node = detail::make_node<detail::EmbeddingNode<T, Space>>();
      node->index = index.impl()->buffer;
      node->n = index.size();
      node->first = first;
      node->count = count;
      node->width = width;
      node->pending = detail::pending_rule(W::placements, rule.out);
      node->inputs.push_back(weight.impl()->slot);
      detail::record(y, std::move(node));
    }
    return y;
  } else {
    return Y();
  }
}

template <RealElement T, class LW, Element TI, std::size_t R, class LI>
  requires(!std::is_same_v<TI, std::int64_t>)
auto embedding(const BasicTensor<T, 2, LW>&, const BasicTensor<TI, R, LI>&) {
  static_assert(std::is_same_v<TI, std::int64_t>,
                "shardwise::embedding: [O28] an index is a std::int64_t; cast<std::int64_t>(index)");
  return BasicTensor<T, R + 1, LW>();
}

/// Zeroes each element with probability p and scales the rest by 1 / (1 - p). One draw; the mask depends on the
/// element's global index, so that it is the one-device mask whatever the placement. PyTorch: `torch.nn.functional.dropout`.
template <RealElement T, std::size_t R, class L>
BasicTensor<T, R, L> dropout(const BasicTensor<T, R, L>& x, double p) {
  static_assert(
      detail::rule_for_each_axis(detail::layout_traits<L>::placements, detail::value_rule).ok,
      "shardwise::dropout: [O5] dropout of a pending reduction is not the reduction of dropout; redistribute<Replicate>(x) or "
      "redistribute<Shard<d>>(x) first");
  SHARDWISE_REQUIRE(p >= 0 && p <= 1,
                    "shardwise::dropout: a probability of " + std::to_string(p) + "; it lies in [0, 1]");
  auto y = detail::make_tensor<T, R, L>(x.impl()->global, x.mesh_state());
  detail::inherit_origin(y, x);
  const std::int64_t n = y.size();
  using Space = detail::space_of<L>;
  const detail::Buffer uniform = Space::allocated(static_cast<std::size_t>(n) * sizeof(float));
  detail::draw_uniform<float>(x, uniform, 0.0f, 1.0f);
  detail::Buffer mask = Space::allocated(static_cast<std::size_t>(n));
  auto* const kept = mask.template as<std::uint8_t>();
  if constexpr (detail::is_host<Space>)
    detail::kernels::dropout(x.data(), uniform.template as<const float>(), p, y.data(), kept, n);
  else
    typename Space::Compute(x.impl()->buffer)
        .dropout(dtype_of<T>, x.device_data(), uniform.template as<const float>(), p, y.device_data(), kept, n);
  if (detail::wants_grad(x)) {
    auto node = detail::make_node<detail::DropoutNode<T, Space>>(std::move(mask), p, n);
    node->inputs.push_back(x.impl()->slot);
    detail::record(y, std::move(node));
  }
  return y;
}

}  // namespace shardwise
