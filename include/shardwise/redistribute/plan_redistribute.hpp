// plan_redistribute: what redistribute does between two lists of placements, before it is done; in a static_assert, or printed.
// Layer: redistribute.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/mesh/device_mesh.hpp>
#include <shardwise/placement/planner.hpp>
#include <shardwise/redistribute/redistribute.hpp>

namespace shardwise {

/// Placements on the axes of a mesh, in their order: `Placements<Shard<0>, Replicate>`.
template <Placement... P>
struct Placements {
  static constexpr std::size_t count = sizeof...(P);
  static constexpr detail::PlacementList<sizeof...(P)> values{placement_value<P>...};
};

namespace detail {

template <class P>
inline constexpr bool is_placements = false;
template <class... P>
inline constexpr bool is_placements<Placements<P...>> = true;

template <class From, class To>
inline constexpr bool all_reachable = false;
template <class... From, class... To>
  requires(sizeof...(From) == sizeof...(To))
inline constexpr bool all_reachable<Placements<From...>, Placements<To...>> = (partial_is_reachable<From, To> && ...);

template <class From, class To, std::size_t N>
constexpr RedistributePlan plan_between(const Shape<N>& mesh, const Extents* shape, const PlanOptions& options) {
  static_assert(From::count == N && To::count == N,
                "shardwise::plan_redistribute: [P1] one placement per mesh axis, before and after");
  static_assert(N <= max_axes, "shardwise::plan_redistribute: [P6] tensors lie on meshes of at most 8 axes");
  if constexpr (From::count == N && To::count == N && N <= max_axes) {
    static_assert(all_reachable<From, To>,
                  "shardwise::plan_redistribute: [P3] the target is Partial where the source is not; only a sum can be "
                  "made of a value");
    static_assert(
        partials_mix(From::values),
        "shardwise::plan_redistribute: [P4] pending reductions of one tensor are alike; only Sum and Avg mix");
    return plan({From::values.data(), To::values.data(), mesh.data(), static_cast<int>(N)}, shape, options);
  } else {
    return {};
  }
}

}  // namespace detail

/// The plan on a mesh of these sizes: `plan_redistribute<Placements<Shard<0>>, Placements<Shard<1>>>({4})`.
///
/// Nothing is priced without a shape: one exchange, wherever one collective can do it.
template <class From, class To, std::size_t N>
  requires(detail::is_placements<From> && detail::is_placements<To>)
constexpr RedistributePlan plan_redistribute(const std::int64_t (&mesh)[N]) {
  Shape<N> sizes{};
  for (std::size_t a = 0; a < N; ++a) sizes[a] = mesh[a];
  return detail::plan_between<From, To>(sizes, nullptr, {});
}

/// The same with what ranks receive of a tensor of this global shape, and with the choice between one exchange and several
/// steps by the cost model of `options`. Shard dimensions count from the front.
template <class From, class To, std::size_t N, std::size_t R>
  requires(detail::is_placements<From> && detail::is_placements<To>)
constexpr RedistributePlan plan_redistribute(const std::int64_t (&mesh)[N], const std::int64_t (&shape)[R],
                                             const PlanOptions& options = {}) {
  Shape<N> sizes{};
  for (std::size_t a = 0; a < N; ++a) sizes[a] = mesh[a];
  detail::Extents global;
  global.rank = static_cast<int>(R);
  for (std::size_t d = 0; d < R; ++d) global.size[d] = shape[d];
  return detail::plan_between<From, To>(sizes, &global, options);
}

/// What `redistribute` of a tensor of this shape does on this very mesh, priced as its communicator prices.
template <class From, class To, std::size_t R, class Comm, Name... Axes>
  requires(detail::is_placements<From> && detail::is_placements<To>)
RedistributePlan plan_redistribute(const DeviceMesh<Comm, Axes...>& mesh, const Shape<R>& shape,
                                   std::int64_t bytes_per_element = 4) {
  const detail::Extents global(shape);
  return detail::plan_between<From, To>(mesh.shape(), &global, {bytes_per_element, detail::cost_on(mesh)});
}

}  // namespace shardwise
