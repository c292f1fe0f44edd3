// reshape, transpose and concat: where elements lie changes, their values do not; with placement rules and
// gradients. A reshape that would have to move data between ranks is refused. Layer: ops.
#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/ops/kernels/copy.hpp>
#include <shardwise/ops/rules.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/tensor/factories.hpp>

namespace shardwise {

namespace detail {

template <class = void>
struct ReshapeNode final : Node {
  ReshapeNode() : Node("reshape") {}
  void backward(GradSlot& out) override { accumulate(*inputs[0], std::move(out.grad), out.pending); }
};

// dst = src with dimensions p and q exchanged; `shape` is the source's.
template <class T, class Space>
void transpose_elements(const Extents& shape, int p, int q, const Buffer& src, const Buffer& dst) {
  if constexpr (is_host<Space>) {
    kernels::transpose(shape, p, q, src.as<const T>(), dst.as<T>());
  } else {
    const kernels::TransposeStrides s(shape, p, q);
    typename Space::Compute(src).strided_copy(sizeof(T), shape.rank, s.extents, src.data(), s.from, dst.data(), s.to);
  }
}

template <class T, class Space>
struct TransposeNode final : Node {
  TransposeNode(const Extents& result, int a, int b) : Node("transpose"), shape(result), p(a), q(b) {}
  void backward(GradSlot& out) override {
    Buffer dx = Space::allocated(static_cast<std::size_t>(shape.elements()) * sizeof(T));
    transpose_elements<T, Space>(shape, p, q, out.grad, dx);
    accumulate(*inputs[0], std::move(dx), out.pending);
  }
  Extents shape;
  int p;
  int q;
};

template <class T, class Space>
struct ConcatNode final : Node {
  ConcatNode() : Node("concat") {}
  void backward(GradSlot& out) override {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i] != nullptr) {
        const std::int64_t length = sizes[i] * inner;
        Buffer dx = Space::allocated(static_cast<std::size_t>(outer * length) * sizeof(T));
        if constexpr (is_host<Space>)
          kernels::extract_slice(out.grad.as<const T>(), dx.as<T>(), outer, sizes[i], inner, total, offset);
        else
          typename Space::Compute(out.grad).copy_rows(sizeof(T), out.grad.as<const T>() + offset * inner, total * inner,
                                                      dx.data(), length, outer, length);
        accumulate(*inputs[i], std::move(dx), out.pending);
      }
      offset += sizes[i];
    }
  }
  std::vector<std::int64_t> sizes;
  std::int64_t outer = 1;
  std::int64_t inner = 1;
  std::int64_t total = 0;
};

constexpr PlacementValue transposed(PlacementValue p, int a, int b) {
  if (p.is_split() && (p.dim == a || p.dim == b)) p.dim = a + b - p.dim;
  return p;
}

template <std::size_t N>
constexpr PlacementList<N> transposed(PlacementList<N> list, int a, int b) {
  for (PlacementValue& p : list) p = transposed(p, a, b);
  return list;
}

// A reshape keeps every rank's elements where they are if both boxes are the same run of elements, cut in the same
// places, for every rank: decided from global sizes, so that all ranks agree.
template <std::size_t N>
bool same_elements(const PlacementList<N>& from, const Extents& old_shape, const PlacementList<N>& to,
                   const Extents& new_shape, const Shape<N>& mesh) {
  std::int64_t ranks = 1;
  for (const std::int64_t k : mesh) ranks *= k;
  for (std::int64_t r = 0; r < ranks; ++r) {
    Shape<N> c{};
    std::int64_t rest = r;
    for (std::size_t a = N; a-- > 0;) {
      c[a] = rest % mesh[a];
      rest /= mesh[a];
    }
    const Walk a = walk(box_of(from, mesh, c, old_shape), whole_box(old_shape), box_of(from, mesh, c, old_shape));
    const Walk b = walk(box_of(to, mesh, c, new_shape), whole_box(new_shape), box_of(to, mesh, c, new_shape));
    if (a.empty && b.empty) continue;
    if (a.empty != b.empty || a.rank != b.rank || a.start_a != b.start_a) return false;
    for (int i = 0; i < a.rank; ++i)
      if (a.extent[i] != b.extent[i] || a.stride_a[i] != b.stride_a[i]) return false;
  }
  return true;
}

template <class Layout, class X, std::size_t RY>
auto reshape_to(const X& x, Shape<RY> shape) {
  using T = typename X::value_type;
  std::int64_t known = 1;
  int open = -1;
  for (std::size_t d = 0; d < RY; ++d) {
    if (shape[d] == -1 && open < 0)
      open = static_cast<int>(d);
    else
      known *= shape[d];
  }
  const std::int64_t all = x.impl()->global.elements();
  if (open >= 0 && known > 0 && all % known == 0) shape[static_cast<std::size_t>(open)] = all / known;
  const Extents global(shape);
  bool sizes = global.elements() == all;
  for (const std::int64_t n : shape) sizes = sizes && n >= 0;
  SHARDWISE_REQUIRE(sizes,
                    "shardwise::reshape: " + shardwise::to_string(x.shape()) + " does not have the elements of " +
                        to_string(global),
                    ShapeError);
  Extents local = global;
  if constexpr (X::distributed) {
    constexpr auto to = layout_traits<Layout>::placements;
    SHARDWISE_REQUIRE(same_elements(X::placements, x.impl()->global, to, global, x.mesh().shape()),
                      "shardwise::reshape: from " + shardwise::to_string(x.shape()) + " placed " +
                          to_string(X::placements) + " to " + to_string(global) + " placed " + to_string(to) +
                          " would move elements between ranks; redistribute first, or name the placement: "
                          "reshape<P...>(x, shape)",
                      ShapeError);
    local = local_box(x.mesh(), to, global).size;
  }
  auto y = share_tensor<T, RY, Layout>(x.impl()->buffer, global, local, x.mesh_state());
  if constexpr (FieldElement<T>)
    if (wants_grad(x)) {
      auto node = make_node<ReshapeNode<>>();
      node->inputs.push_back(x.impl()->slot);
      record(y, std::move(node));
    }
  return y;
}

template <class L, class... P>
struct reshaped_layout {
  using type = L;
};
template <class Mesh, Placement... Old, class First, class... P>
struct reshaped_layout<Distributed<Mesh, Old...>, First, P...> {
  using type = Distributed<Mesh, First, P...>;
};

}  // namespace detail

/// The same elements in another shape, shared, not copied; one size may be -1. On a mesh the placements stay, or are named:
/// `reshape<Shard<0>>(x, {n, m})`. Throws `ShapeError` where the sizes do not fit or elements would have to move between
/// ranks, on all ranks alike. PyTorch: `torch.reshape`.
template <class... P, Element T, std::size_t R, class L, std::size_t RY>
auto reshape(const BasicTensor<T, R, L>& x, const Shape<RY>& shape) {
  constexpr bool one_each = sizeof...(P) == 0 || sizeof...(P) == detail::layout_traits<L>::axes;
  static_assert(
      one_each,
      "shardwise::reshape: [P1] one placement per mesh axis, or none: the placements stay; a plain tensor takes none");
  constexpr bool exist = (shard_dim_in_range<P, RY> && ...);
  static_assert(exist,
                "shardwise::reshape: [P2] the shard dimension exists in the result; choose one from -rank to rank - 1");
  if constexpr (one_each && exist) {
    using Layout = typename detail::reshaped_layout<L, Normalized<P, RY>...>::type;
    constexpr bool ranges = !detail::is_interleaved(detail::layout_traits<L>::placements) &&
                            !detail::is_interleaved(detail::layout_traits<Layout>::placements);
    static_assert(
        ranges,
        "shardwise::reshape: [O27] a block-cyclic or strided tensor keeps its shape; redistribute to Shard first");
    constexpr bool fits = ranges && detail::placements_fit<Layout, RY>;
    static_assert(fits || !ranges,
                  "shardwise::reshape: [O25] a sharded dimension does not exist in the result; name its placement: "
                  "reshape<P...>(x, shape)");
    if constexpr (fits)
      return detail::reshape_to<Layout>(x, shape);
    else
      return x;
  } else {
    return x;
  }
}
template <class... P, Element T, std::size_t R, class L, std::size_t RY>
auto reshape(const BasicTensor<T, R, L>& x, const std::int64_t (&shape)[RY]) {
  return reshape<P...>(x, detail::to_shape(shape));
}

/// Nothing: dimensions are known to the compiler.
template <Element T, std::size_t R, class L, std::integral... I>
auto transpose(const BasicTensor<T, R, L>& x, I...) {
  static_assert(detail::dimensions_are_template_arguments<I...>,
                "shardwise::transpose: [O30] both dimensions stand in angle brackets: transpose<0, 1>(x)");
  return x;
}

/// Dimensions A and B change places; contiguous again. A shard follows its dimension. PyTorch: `torch.transpose`.
template <int A, int B, Element T, std::size_t R, class L>
auto transpose(const BasicTensor<T, R, L>& x) {
  constexpr int a = A < 0 ? A + static_cast<int>(R) : A;
  constexpr int b = B < 0 ? B + static_cast<int>(R) : B;
  static_assert(a >= 0 && a < static_cast<int>(R) && b >= 0 && b < static_cast<int>(R),
                "shardwise::transpose: [O11] the dimension exists in the tensor; choose one from -rank to rank - 1");
  constexpr bool exists = a >= 0 && a < static_cast<int>(R) && b >= 0 && b < static_cast<int>(R);
  if constexpr (!exists) {
    return x;
  } else {
    constexpr detail::PlacementRule<detail::layout_traits<L>::axes> rule{
        true, detail::transposed(detail::layout_traits<L>::placements, a, b)};
    using Layout = typename detail::layout_with<L, rule>::type;
    detail::Extents global = x.impl()->global;
    std::swap(global[a], global[b]);
    auto y = detail::make_tensor<T, R, Layout>(global, x.mesh_state());
    detail::transpose_elements<T, detail::space_of<L>>(x.impl()->local, a, b, x.impl()->buffer, y.impl()->buffer);
    if constexpr (FieldElement<T>)
      if (detail::wants_grad(x)) {
        auto node = detail::make_node<detail::TransposeNode<T, detail::space_of<L>>>(y.impl()->local, a, b);
        node->inputs.push_back(x.impl()->slot);
        detail::record(y, std::move(node));
      }
    return y;
  }
}

/// Tensors of one layout behind each other along dimension D, which is not sharded. PyTorch: `torch.cat`.
template <int D, Element T, std::size_t R, class L, class... More>
BasicTensor<T, R, L> concat(const BasicTensor<T, R, L>& first, const More&... more) {
  constexpr int d = D < 0 ? D + static_cast<int>(R) : D;
  static_assert(d >= 0 && d < static_cast<int>(R),
                "shardwise::concat: [O11] the dimension exists in the tensor; choose one from -rank to rank - 1");
  constexpr bool whole = detail::rule_for_each_axis(detail::layout_traits<L>::placements, [](detail::PlacementValue p) {
                           return p.is_split(d) ? detail::no_rule : detail::AxisRule{true, p};
                         }).ok;
  static_assert(
      whole,
      "shardwise::concat: [O18] the dimension is not sharded; redistribute the operands, or concat along another one");
  constexpr bool alike = (std::is_same_v<More, BasicTensor<T, R, L>> && ...);
  static_assert(alike, "shardwise::concat: [O24] all operands have one type: element type, rank, mesh and placements");
  if constexpr (d < 0 || d >= static_cast<int>(R) || !whole || !alike) {
    return first;
  } else {
    const BasicTensor<T, R, L>* all[] = {&first, static_cast<const BasicTensor<T, R, L>*>(&more)...};
    detail::Extents global = first.impl()->global;
    global[d] = 0;
    for (const auto* x : all) {
      detail::Extents other = x->impl()->global;
      global[d] += other[d];
      other[d] = global[d];
      SHARDWISE_REQUIRE(other == global,
                        "shardwise::concat: shapes " + to_string(first.shape()) + " and " + to_string(x->shape()) +
                            " differ in another dimension than " + std::to_string(d),
                        ShapeError);
      detail::require_same_mesh("shardwise::concat", first, *x);
    }
    auto y = detail::make_tensor<T, R, L>(global, first.mesh_state());
    const detail::Extents& shape = y.impl()->local;
    const std::int64_t outer = shape.elements(0, d);
    const std::int64_t inner = shape.elements(d + 1, shape.rank);
    std::int64_t offset = 0;
    bool wanted = false;
    std::vector<std::int64_t> sizes;
    for (const auto* x : all) {
      const std::int64_t n = x->impl()->local[d];
      if constexpr (detail::on_host<L>)
        detail::kernels::insert_slice(x->data(), y.data(), outer, n, inner, shape[d], offset);
      else
        typename detail::space_of<L>::Compute(x->impl()->buffer)
            .copy_rows(sizeof(T), x->device_data(), n * inner, y.device_data() + offset * inner, shape[d] * inner,
                       outer, n * inner);
      offset += n;
      sizes.push_back(n);
      wanted = wanted || detail::wants_grad(*x);
    }
    if constexpr (FieldElement<T>)
      if (wanted) {
        auto node = detail::make_node<detail::ConcatNode<T, detail::space_of<L>>>();
        for (const auto* x : all) node->inputs.push_back(x->impl()->slot);
        node->sizes = std::move(sizes);
        node->outer = outer;
        node->inner = inner;
        node->total = shape[d];
        detail::record(y, std::move(node));
      }
    return y;
  }
}

}  // namespace shardwise
