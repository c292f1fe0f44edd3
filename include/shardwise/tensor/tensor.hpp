// BasicTensor: a dense, contiguous, row-major tensor of static rank; a handle with shared storage. Tensor is
// the plain one, DTensor the local part of a global one. Moves nothing: redistribute/ does. Layer: tensor.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/trace.hpp>
#include <shardwise/placement/index_set.hpp>
#include <shardwise/tape/tape.hpp>
#include <shardwise/tensor/impl.hpp>
#include <shardwise/tensor/layout.hpp>
#include <shardwise/tensor/part.hpp>

namespace shardwise {

template <Element T, std::size_t R, class Layout>
class BasicTensor;

/// A plain tensor of element type T and rank R.
template <Element T, std::size_t R, class Space = Host>
using Tensor = BasicTensor<T, R, Local<Space>>;

/// The local part of a global tensor. PyTorch: `DTensor`.
template <Element T, std::size_t R, class Mesh, class... P>
using DTensor = BasicTensor<T, R, Distributed<Mesh, P...>>;

namespace detail {

// A result of its operand's shape is a part of the same kind of tensor. (Of two operands with an origin the first counts.)
template <class Y, class X>
void inherit_origin(Y& y, const X& x) {
  if constexpr (!Y::distributed && !X::distributed)
    if (x.impl()->origin != nullptr && y.impl()->origin == nullptr && y.impl()->local == x.impl()->local)
      y.impl()->origin = x.impl()->origin;
}

// Full tensor of a distributed one; defined in redistribute/.
template <class X>
auto gather_full(const X& x);
template <class... G, class X>
auto to_local_of(const X& x);

template <class Layout, std::size_t R>
inline constexpr bool placements_fit = true;
template <class M, Placement... P, std::size_t R>
inline constexpr bool placements_fit<Distributed<M, P...>, R> =
    sizeof...(P) == M::ndim && ((shard_dim_in_range<P, R> && shard_dim_is_normalized<P>) && ...);

// Complex numbers have no maximum and no minimum.
template <class T, class Layout>
constexpr bool reductions_have_meaning() {
  if constexpr (is_complex<T>)
    for (const PlacementValue& p : layout_traits<Layout>::placements)
      if (p.is_partial() && (p.op == ReduceOp::max || p.op == ReduceOp::min)) return false;
  return true;
}

}  // namespace detail

/// A dense, contiguous, row-major tensor: a handle, so that copies share their elements (as in PyTorch).
///
/// `Layout` is `Local<Space>` or `Distributed<Mesh, P...>`. A tensor that was default-constructed, or moved from, is undefined:
/// `defined()` is false, it may be assigned to, and all else throws `Error`.
template <Element T, std::size_t R, class Layout>
class BasicTensor {
  static_assert(R <= max_rank, "shardwise::Tensor: [S1] at most 8 dimensions");
  static_assert(
      detail::placements_fit<Layout, R>,
      "shardwise::DTensor: [S2] a tensor type has one placement per mesh axis, its shard dimensions count from the front and lie "
      "below the rank; write Normalized<P, R>");
  static_assert(
      detail::reductions_have_meaning<T, Layout>(),
      "shardwise::DTensor: [S4] complex numbers have no order, so no Partial<Max> and no Partial<Min> of them");

 public:
  using value_type = T;
  using layout_type = Layout;
  static constexpr std::size_t rank = R;
  static constexpr bool distributed = detail::layout_traits<Layout>::distributed;
  static constexpr auto placements = detail::layout_traits<Layout>::placements;
  using Mesh = typename detail::MeshHandle<Layout>::Mesh;
  using Gradient = BasicTensor<T, R, GradientLayout<Layout>>;

  BasicTensor() = default;

  /// Zero-initialised.
  explicit BasicTensor(const Shape<R>& shape)
    requires(!distributed)
      : impl_(detail::make_zeroed(Layout(), detail::Extents(shape), sizeof(T))) {}

  /// A tensor in the caller's memory, which must outlive it.
  static BasicTensor view(T* pointer, const Shape<R>& shape)
    requires(!distributed)
  {
    const detail::Extents sizes(shape);
    return BasicTensor(detail::share_impl(detail::Buffer::view(pointer), sizes, sizes), MeshState{});
  }

  bool defined() const { return impl_ != nullptr; }
  /// Global sizes.
  Shape<R> shape() const { return impl()->global.template shape<R>(); }
  /// Sizes of this rank's part.
  Shape<R> local_shape() const { return impl()->local.template shape<R>(); }
  /// Where this rank's part begins in the global index space; the global size where it is empty.
  Shape<R> local_offset() const {
    static_assert(
        !detail::is_interleaved(placements),
        "shardwise::local_offset: [B4] a block-cyclic or strided part lies at several places; ask for them one by one "
        "with x.global_index(dimension, position)");
    if constexpr (distributed)
      return detail::local_box(mesh_, placements, impl()->global).offset.template shape<R>();
    else
      return Shape<R>{};
  }
  /// The index in the global tensor, along one dimension, of a position in this rank's part; any placements, block-cyclic ones
  /// included (ScaLAPACK: `indxl2g`). Throws `ShapeError` for a position that the part does not have.
  std::int64_t global_index(int dimension, std::int64_t position) const {
    SHARDWISE_REQUIRE(dimension >= 0 && dimension < static_cast<int>(R) && position >= 0 &&
                          position < impl()->local[dimension],
                      "shardwise::global_index: no position " + std::to_string(position) + " in dimension " +
                          std::to_string(dimension) + " of a part of shape " + to_string(local_shape()),
                      ShapeError);
    if constexpr (distributed)
      return detail::holding_of(placements, mesh_.shape(), mesh_.grid().coordinate, impl()->global)
          .dim[dimension]
          .at(position)
          .index;
    else
      return position;
  }
  /// Elements of this rank's part.
  std::int64_t size() const { return impl()->local.elements(); }
  T* data() {
    static_assert(
        detail::on_host<Layout>,
        "shardwise::data: [S3] these elements lie on a device, where the host reads and writes nothing; to_host(x) "
        "brings them, device_data() is their address there");
    return impl()->buffer.template as<T>();
  }
  const T* data() const { return const_cast<BasicTensor&>(*this).data(); }
  /// The address of the elements on their device.
  T* device_data()
    requires(!detail::on_host<Layout>)
  {
    return impl()->buffer.template as<T>();
  }
  const T* device_data() const
    requires(!detail::on_host<Layout>)
  {
    return impl()->buffer.template as<T>();
  }
  const Mesh& mesh() const
    requires distributed
  {
    return mesh_;
  }

  /// The value of a tensor of one element. Throws `ShapeError` for another size.
  T item() const {
    if constexpr (distributed)
      for (const auto& p : placements)
        SHARDWISE_REQUIRE(p.is_replicate(),
                          "shardwise::item: the value is not whole on this rank; redistribute<Replicate> it first");
    SHARDWISE_REQUIRE(size() == 1, detail::text("shardwise::item: a tensor of shape ", shape(), " has not one element"),
                      ShapeError);
    return data()[0];
  }

  /// This rank's part as a plain tensor that shares its elements; `to_local<G...>(x)` where the gradient of the
  /// part means something else than the placement says. A plain tensor is its own part. PyTorch: `DTensor.to_local`.
  auto to_local() const {
    if constexpr (distributed)
      return detail::to_local_of<>(*this);
    else
      return *this;
  }
  /// The whole tensor on every rank; a plain tensor is its own. PyTorch: `DTensor.full_tensor`.
  auto full_tensor() const {
    if constexpr (distributed)
      return detail::gather_full(*this);
    else
      return *this;
  }

  /// Whether operators on this tensor are recorded.
  bool requires_grad() const { return impl()->slot != nullptr; }
  /// Marks a leaf. Throws `Error` on the result of an operator.
  BasicTensor& requires_grad(bool wanted) {
    static_assert(FieldElement<T>,
                  "shardwise::requires_grad: [G1] gradients exist for real and complex floating point only");
    SHARDWISE_REQUIRE(is_leaf(),
                      "shardwise::requires_grad: this tensor is the result of an operator; detach(x) gives a leaf");
    if (!wanted)
      impl()->slot = nullptr;
    else if (impl()->slot == nullptr)
      impl()->slot = detail_make_slot(true);
    return *this;
  }
  bool is_leaf() const { return impl()->slot == nullptr || impl()->slot->leaf; }
  bool has_grad() const { return impl()->slot != nullptr && impl()->slot->leaf && impl()->slot->has_grad(); }

  /// The gradient that backward() left in a leaf. Never communicates: throws `Error` where there is none, and where it
  /// is still a pending sum over a mesh axis.
  Gradient grad() const {
    SHARDWISE_REQUIRE(impl()->slot != nullptr,
                      "shardwise::grad: this tensor requires no gradient; call requires_grad(true) before its use");
    SHARDWISE_REQUIRE(
        impl()->slot->leaf,
        "shardwise::grad: gradients are kept for leaves only, and this tensor is the result of an operator");
    SHARDWISE_REQUIRE(impl()->slot->has_grad(),
                      "shardwise::grad: there is no gradient yet; run backward() first (has_grad() asks)");
    SHARDWISE_REQUIRE(
        impl()->slot->pending == 0,
        "shardwise::grad: the gradient is a pending sum over a mesh axis; call settle_gradients(parameters(model)) "
        "(an optimizer step begins with it)");
    return Gradient(detail::share_impl(impl()->slot->grad, impl()->global, impl()->local), mesh_);
  }

  // Below: for the library's own layers.
  using MeshState = Mesh;
  BasicTensor(detail::Ref<detail::TensorImpl> impl, MeshState mesh) : impl_(std::move(impl)), mesh_(std::move(mesh)) {}
  const detail::Ref<detail::TensorImpl>& impl() const {
    if (impl_ == nullptr) [[unlikely]]
      detail::fail_undefined();
    return impl_;
  }
  const MeshState& mesh_state() const { return mesh_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * sizeof(T); }

  detail::Ref<detail::GradSlot> detail_make_slot(bool leaf) const {
    if constexpr (distributed) {
      auto slot = detail::make_slot(dtype_of<T>, impl_->local.elements(), leaf, detail::not_first_mask(mesh_),
                                    detail::grad_memory_of<Layout>());
      if (leaf) slot->reducer = detail::make_ref<detail::MeshReducer<Mesh>>(mesh_);
      return slot;
    } else {
      return detail::make_slot(dtype_of<T>, impl_->local.elements(), leaf, 0, detail::grad_memory_of<Layout>());
    }
  }

 private:
  detail::Ref<detail::TensorImpl> impl_;
  [[no_unique_address]] MeshState mesh_;
};

namespace detail {

template <class X>
inline constexpr bool is_tensor = false;
template <class T, std::size_t R, class L>
inline constexpr bool is_tensor<BasicTensor<T, R, L>> = true;

// A new tensor of a layout, elements not set. `mesh` is the mesh of a distributed layout.
template <class T, std::size_t R, class Layout, class MeshState>
BasicTensor<T, R, Layout> make_tensor(const Extents& global, const MeshState& mesh) {
  if constexpr (!on_host<Layout>) {
    Extents local = global;
    if constexpr (layout_traits<Layout>::distributed) local = local_extents<Layout>(mesh, global);
    const auto bytes = static_cast<std::size_t>(local.elements()) * sizeof(T);
    return BasicTensor<T, R, Layout>(share_impl(space_of<Layout>::allocated(bytes), global, local), mesh);
  } else if constexpr (layout_traits<Layout>::distributed)
    return BasicTensor<T, R, Layout>(make_impl(global, local_extents<Layout>(mesh, global), sizeof(T)), mesh);
  else
    return BasicTensor<T, R, Layout>(make_impl(global, global, sizeof(T)), mesh);
}

// A handle of another type or shape on the same elements.
template <class T, std::size_t R, class Layout, class MeshState>
BasicTensor<T, R, Layout> share_tensor(const Buffer& buffer, const Extents& global, const Extents& local,
                                       const MeshState& mesh) {
  return BasicTensor<T, R, Layout>(share_impl(buffer, global, local), mesh);
}

// Every element `value`.
template <class X>
void set_elements(X& x, typename X::value_type value) {
  using T = typename X::value_type;
  if constexpr (on_host<typename X::layout_type>) {
    T* p = x.data();
    const std::int64_t n = x.size();
    for (std::int64_t i = 0; i < n; ++i) p[i] = value;
  } else {
    using Compute = typename space_of<typename X::layout_type>::Compute;
    Compute(x.impl()->buffer).fill(dtype_of<T>, x.device_data(), &value, x.size());
  }
}

template <class X>
bool wants_grad(const X& x) {
  return tape_state().enabled && x.impl()->slot != nullptr;
}

// Puts `node` behind `out`.
template <class X>
void record(X& out, Ref<Node> node) {
  out.impl()->slot = out.detail_make_slot(false);
  out.impl()->slot->producer = std::move(node);
}

}  // namespace detail

/// The same elements, cut off from the tape. PyTorch: `Tensor.detach`.
template <class T, std::size_t R, class L>
BasicTensor<T, R, L> detach(const BasicTensor<T, R, L>& x) {
  auto y = detail::share_tensor<T, R, L>(x.impl()->buffer, x.impl()->global, x.impl()->local, x.mesh_state());
  detail::inherit_origin(y, x);
  return y;
}

/// A copy of the elements, cut off from the tape. PyTorch: `x.detach().clone()`.
template <class T, std::size_t R, class L>
BasicTensor<T, R, L> clone(const BasicTensor<T, R, L>& x) {
  auto y = detail::make_tensor<T, R, L>(x.impl()->global, x.mesh_state());
  if constexpr (detail::on_host<L>)
    std::memcpy(y.data(), x.data(), x.bytes());
  else
    detail::space_of<L>::copy(y.impl()->buffer, x.impl()->buffer, x.bytes());
  detail::inherit_origin(y, x);
  return y;
}

/// Runs the tape behind a tensor of one element, whose gradient is 1.
///
/// `loss` may lie on a mesh; a `Partial` one has the gradient 1 on every rank. Gradients add to those that leaves
/// have already, until `zero_grad`. Throws `Error` where nothing was recorded or the tape was run before.
/// PyTorch: `Tensor.backward`.
template <class T, std::size_t R, class L>
void backward(const BasicTensor<T, R, L>& loss) {
  std::int64_t n = loss.impl()->global.elements();
  SHARDWISE_REQUIRE(n == 1,
                    detail::text("shardwise::backward: a tensor of shape ", loss.shape(),
                                 " has not one element; give the gradient: backward(y, grad)"),
                    ShapeError);
  auto seed = detail::make_tensor<T, R, GradientLayout<L>>(loss.impl()->global, loss.mesh_state());
  T one = static_cast<T>(1);
  if constexpr (BasicTensor<T, R, L>::distributed)
    for (std::size_t a = 0; a < detail::layout_traits<L>::axes; ++a) {
      const detail::PlacementValue p = detail::layout_traits<L>::placements[a];
      if (p.is_partial() && p.op == ReduceOp::avg)
        one = static_cast<T>(one / static_cast<T>(static_cast<float>(loss.mesh_state().shape()[a])));
      SHARDWISE_REQUIRE(!p.is_partial() || p.op == ReduceOp::sum || p.op == ReduceOp::avg,
                        detail::text("shardwise::backward: a pending ", to_string(p.op), " has no gradient"));
    }
  detail::set_elements(seed, one);
  backward(loss, seed);
}

/// Runs the tape behind `y`, whose gradient is `grad`: same global shape, placed as gradients of `y` are.
template <class T, std::size_t R, class L>
void backward(const BasicTensor<T, R, L>& y, const BasicTensor<T, R, GradientLayout<L>>& grad) {
  const auto& slot = y.impl()->slot;
  SHARDWISE_REQUIRE(slot != nullptr,
                    "shardwise::backward: nothing was recorded; no input of this value requires a gradient");
  SHARDWISE_REQUIRE(slot->leaf || slot->producer != nullptr,
                    "shardwise::backward: the tape behind this value has been run; each is run once");
  SHARDWISE_REQUIRE(
      grad.shape() == y.shape(),
      detail::text("shardwise::backward: a gradient of shape ", grad.shape(), " for a value of shape ", y.shape()),
      ShapeError);
  detail::accumulate(*slot, grad.impl()->buffer, 0);
  detail::TraceState& trace = detail::trace_state();
  struct Restore {
    detail::TraceState& state;
    bool before;
    ~Restore() { state.backward = before; }
  } restore{trace, std::exchange(trace.backward, true)};
  NoGrad guard;
  detail::run_backward(slot);
}

}  // namespace shardwise
