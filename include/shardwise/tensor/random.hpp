// Random tensors: a value depends on the seed, the draw and the element's global index alone (Philox), never on
// who holds it. So a sharded random tensor is the one-device random tensor, shard by shard. Layer: tensor.
#pragma once

#include <cstdint>
#include <utility>

#include <shardwise/base/philox.hpp>
#include <shardwise/placement/common_rows.hpp>
#include <shardwise/placement/walk.hpp>
#include <shardwise/tensor/factories.hpp>

namespace shardwise {

namespace detail {

struct RandomState {
  std::uint64_t seed = 67280421310721ull;  // torch's default seed; equal on all ranks
  std::uint64_t draw = 0;
};
inline RandomState& random_state() {
  thread_local RandomState state;
  return state;
}

// Calls run(first global index, first local element, length) for every contiguous run of the local part.
template <class X, class Run>
void for_each_run(const X& x, Run&& run) {
  const Extents& global = x.impl()->global;
  if constexpr (is_interleaved(X::placements)) {
    if (x.size() == 0) return;
    const Holding held = holding_of(X::placements, x.mesh().shape(), x.mesh().grid().coordinate, global);
    const Holding whole = holding_of(PlacementList<1>{}, Shape<1>{1}, Shape<1>{0}, global);
    CommonRows(whole, held).for_each([&](const CommonRuns::Run* runs, int count, std::int64_t from, std::int64_t to) {
      for (int r = 0; r < count; ++r) run(from + runs[r].a, to + runs[r].b, runs[r].size);
    });
  } else if constexpr (X::distributed) {
    const Box held = local_box(x.mesh(), X::placements, global);
    const Walk w = walk(held, whole_box(global), held);
    const std::int64_t length = w.extent[w.rank - 1];
    for_each_row(w, [&](std::int64_t from, std::int64_t to) { run(from, to, length); });
  } else {
    if (x.size() > 0) run(std::int64_t{0}, std::int64_t{0}, x.size());
  }
}

// The same as walks: few, for a memory that takes rows of rows at once.
template <class X, class Rows>
void for_each_walk(const X& x, Rows&& rows) {
  if constexpr (X::distributed && !is_interleaved(X::placements)) {
    const Box held = local_box(x.mesh(), X::placements, x.impl()->global);
    const Walk w = walk(held, whole_box(x.impl()->global), held);
    if (!w.empty) rows(w);
  } else {
    for_each_run(x, [&](std::int64_t index, std::int64_t at, std::int64_t n) {
      Walk w{};
      w.rank = 1;
      w.extent[0] = n;
      w.start_a = index;
      w.start_b = at;
      rows(w);
    });
  }
}

// One draw: a uniform number of type T for each element that x has here, to `out`, which lies where x does.
template <class T, class X>
void draw_uniform(const X& x, const Buffer& out, T low, T high) {
  RandomState& state = random_state();
  const std::uint64_t draw = state.draw++;
  if constexpr (on_host<typename X::layout_type>) {
    for_each_run(x, [&](std::int64_t index, std::int64_t at, std::int64_t n) {
      fill_uniform(out.as<T>() + at, state.seed, draw, index, n, low, high);
    });
  } else {
    const auto number = [](T v) { return static_cast<double>(static_cast<Accumulator<T>>(v)); };
    const typename space_of<typename X::layout_type>::Compute compute(out);
    for_each_walk(x, [&](const Walk& w) {
      compute.fill_uniform(dtype_of<T>, out, state.seed, draw, w, number(low), number(high));
    });
  }
}

template <class X>
X fill_with_uniform(X x, typename X::value_type low, typename X::value_type high) {
  draw_uniform(x, x.impl()->buffer, low, high);
  return x;
}

template <class X>
X fill_with_normal(X x) {
  using T = typename X::value_type;
  RandomState& state = random_state();
  const std::uint64_t draw = state.draw++;
  if constexpr (on_host<typename X::layout_type>) {
    for_each_run(x, [&](std::int64_t index, std::int64_t at, std::int64_t n) {
      fill_normal(x.data() + at, state.seed, draw, index, n, static_cast<T>(0.0f), static_cast<T>(1.0f));
    });
  } else {
    const Buffer& out = x.impl()->buffer;
    const typename space_of<typename X::layout_type>::Compute compute(out);
    for_each_walk(x, [&](const Walk& w) { compute.fill_normal(dtype_of<T>, out, state.seed, draw, w, 0, 1); });
  }
  return x;
}

}  // namespace detail

/// Seeds the calling rank's generator and begins with draw 0. The default seed is fixed and equal on all ranks.
/// PyTorch: `torch.manual_seed`.
inline void manual_seed(std::uint64_t seed) { detail::random_state() = {seed, 0}; }

/// Uniform in [0, 1). One draw a tensor.
template <RealElement T, std::size_t R>
Tensor<T, R> rand(const std::int64_t (&shape)[R]) {
  return detail::fill_with_uniform(detail::make_plain<T, R>(shape), static_cast<T>(0.0f), static_cast<T>(1.0f));
}
template <RealElement T, std::size_t R>
Tensor<T, R> rand(const Shape<R>& shape) {
  return detail::fill_with_uniform(Tensor<T, R>(shape), static_cast<T>(0.0f), static_cast<T>(1.0f));
}
/// Uniform in [0, 1) on a mesh, shard by shard the one-device tensor of the same seed and draw.
template <RealElement T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto rand(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape) {
  return detail::fill_with_uniform(detail::make_placed<T, P...>(mesh, shape), static_cast<T>(0.0f),
                                   static_cast<T>(1.0f));
}
template <RealElement T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto rand(const DeviceMesh<Comm, Axes...>& mesh, const std::int64_t (&shape)[R]) {
  return rand<T, P...>(mesh, detail::to_shape(shape));
}

/// Standard normal. One draw a tensor.
template <RealElement T, std::size_t R>
Tensor<T, R> randn(const std::int64_t (&shape)[R]) {
  return detail::fill_with_normal(detail::make_plain<T, R>(shape));
}
template <RealElement T, std::size_t R>
Tensor<T, R> randn(const Shape<R>& shape) {
  return detail::fill_with_normal(Tensor<T, R>(shape));
}
/// Standard normal on a mesh, shard by shard the one-device tensor of the same seed and draw.
template <RealElement T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto randn(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape) {
  return detail::fill_with_normal(detail::make_placed<T, P...>(mesh, shape));
}
template <RealElement T, Placement... P, class Comm, Name... Axes, std::size_t R>
auto randn(const DeviceMesh<Comm, Axes...>& mesh, const std::int64_t (&shape)[R]) {
  return randn<T, P...>(mesh, detail::to_shape(shape));
}

}  // namespace shardwise
