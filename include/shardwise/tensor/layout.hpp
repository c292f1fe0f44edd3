// Layouts: the third parameter of a tensor type. Local<Space> is plain memory, Distributed<Mesh, P...> the local
// part of a global tensor. Layer: tensor.
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>

#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/mesh/device_mesh.hpp>
#include <shardwise/placement/box.hpp>
#include <shardwise/placement/placement.hpp>

namespace shardwise {

/// Host memory of this rank.
struct Host {
  static constexpr MemorySpace value = MemorySpace::host;

  // Elements not set.
  static detail::Buffer allocated(std::size_t bytes) { return detail::Buffer(bytes); }
};

/// Memory of a CUDA device: `device/tensor.hpp` defines it.
struct Cuda;

/// A tensor that one rank holds, with no relation to others.
template <class Space = Host>
struct Local {};

/// The local part of a global tensor on a mesh, one placement per mesh axis, leftmost axis splits first.
template <class Mesh, Placement... P>
struct Distributed {};

namespace detail {

template <class Layout>
struct layout_traits;

template <class Space>
struct layout_traits<Local<Space>> {
  static constexpr bool distributed = false;
  static constexpr std::size_t axes = 0;
  static constexpr PlacementList<0> placements{};
};

// Whether the elements can be reached by the host's loads and stores.
template <class Layout>
inline constexpr bool on_host = true;
template <class Space>
inline constexpr bool on_host<Local<Space>> = Space::value == MemorySpace::host;

template <class M, Placement... P>
inline constexpr bool on_host<Distributed<M, P...>> = mesh_on_host<M>;

// The memory space of the tensors on a mesh, and of a layout.
template <class Mesh>
using space_on = std::conditional_t<mesh_on_host<Mesh>, Host, Cuda>;
template <class Layout>
using space_of = std::conditional_t<on_host<Layout>, Host, Cuda>;
template <class Space>
inline constexpr bool is_host = on_host<Local<Space>>;
// The layout of this rank's part as a plain tensor.
template <class Layout>
using local_layout_of = Local<space_of<Layout>>;

template <class M, Placement... P>
struct layout_traits<Distributed<M, P...>> {
  static constexpr bool distributed = true;
  static constexpr std::size_t axes = sizeof...(P);
  static constexpr PlacementList<sizeof...(P)> placements{placement_value<P>...};
  using Mesh = M;
};

// Distributed<Mesh, ...> of a constexpr list of placements.
template <class Mesh, auto List, class Indices = std::make_index_sequence<List.size()>>
struct distributed_of;
template <class Mesh, auto List, std::size_t... I>
struct distributed_of<Mesh, List, std::index_sequence<I...>> {
  using type = Distributed<Mesh, typename placement_of<placement_code(List[I])>::type...>;
};

template <std::size_t N>
constexpr PlacementList<N> gradients_of(PlacementList<N> list) {
  for (PlacementValue& p : list) p = gradient_of(p);
  return list;
}

template <class Layout>
struct gradient_layout {
  using type = Layout;
};
template <class Mesh, Placement... P>
struct gradient_layout<Distributed<Mesh, P...>> {
  using type = Distributed<Mesh, GradientPlacement<P>...>;
};

}  // namespace detail

/// The layout of the gradient of a value with this layout.
template <class Layout>
using GradientLayout = typename detail::gradient_layout<Layout>::type;

}  // namespace shardwise
