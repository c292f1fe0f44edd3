// DeviceMesh: ranks laid out in an N-d grid, row-major, one compile-time name per axis. Owns the communicators
// of its axes, which meet whenever tensors move. Layer: mesh.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/base/error.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>

namespace shardwise {

/// How `init_device_mesh` lays out its ranks.
struct MeshOptions {
  /// World ranks in row-major order of the grid; empty: 0, 1, 2, ... PyTorch: `DeviceMesh(device, table)`.
  std::vector<int> ranks = {};
  /// How long a collective of this mesh waits for a rank; zero: as the communicator has it.
  std::chrono::milliseconds deadline{0};
};

namespace detail {

// Position of `name` among `names`, or -1.
template <std::size_t N>
constexpr int axis_index(const std::array<Name, N>& names, const Name& name) {
  for (std::size_t i = 0; i < N; ++i)
    if (names[i] == name) return static_cast<int>(i);
  return -1;
}

template <std::size_t N>
constexpr bool distinct(const std::array<Name, N>& names) {
  for (std::size_t i = 0; i < N; ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (names[i] == names[j]) return false;
  return true;
}

template <std::size_t N, std::size_t M>
constexpr bool ascending(const std::array<Name, N>& names, const std::array<Name, M>& chosen) {
  for (std::size_t i = 0; i + 1 < M; ++i)
    if (axis_index(names, chosen[i]) >= axis_index(names, chosen[i + 1])) return false;
  return true;
}

template <std::size_t N>
constexpr Name joined(const std::array<Name, N>& names) {
  Name all = N > 0 ? names[0] : Name();
  for (std::size_t i = 1; i < N; ++i) all = join_names(all, names[i]);
  return all;
}

// Makes a group of ranks that are listed, and asks none of them.
template <class Comm>
concept GroupsListedRanks = requires(const Comm& c, const std::vector<int>& ranks) {
  { c.subgroup(ranks) } -> std::same_as<Comm>;
};

// What a mesh asks of a communicator, besides its place.
template <class Comm>
concept LaysOutMeshes =
    PlacedCommunicator<Comm> && LabelledCommunicator<Comm> && BoundedCommunicator<Comm> && SplittingCommunicator<Comm>;

// The grid of one rank: what all axis communicators, sub-meshes and tensors of a mesh share.
template <class Comm, std::size_t N>
struct Grid {
  Shape<N> shape{};
  Shape<N> coordinate{};  // meaningless for an outsider
  std::vector<int> ranks;  // world ranks, row-major
  std::array<Name, N> names{};
  bool member = false;
  Ref<const Comm> world;  // what the mesh was made of: where it meets ranks of other meshes
  // Communicators by set of axes (bit a for axis a), made when first needed by all members alike. Users may keep
  // references to them.
  struct Group {
    std::uint32_t axes;
    Ref<const Comm> comm;
  };
  mutable List<Group> groups;
  // Sub-meshes and flattened meshes (bit 31) by set of axes: the same set is the same mesh, and costs nothing again.
  struct Part {
    std::uint32_t axes;
    AnyRef grid;
  };
  mutable List<Part> parts;

  Ref<const Comm> group(std::uint32_t set) const {
    for (const Group& known : groups)
      if (known.axes == set) return known.comm;
    return nullptr;
  }
  AnyRef part(std::uint32_t set) const {
    for (const Part& known : parts)
      if (known.axes == set) return known.grid;
    return {};
  }
};

}  // namespace detail

/// Ranks in an N-d grid with named axes: `DeviceMesh<ThreadCommunicator, "dp", "tp">`.
///
/// A handle, cheap to copy. Ranks of the world outside the grid hold a mesh as well; `is_member()` is false
/// there, tensors on it are empty and nothing communicates. PyTorch: `DeviceMesh`.
template <class Comm, Name... Axes>
class DeviceMesh {
 public:
  using Communicator = Comm;
  static constexpr std::size_t ndim = sizeof...(Axes);
  static constexpr std::array<Name, ndim> names{Axes...};
  using Grid = detail::Grid<Comm, ndim>;

  static_assert(ndim >= 1, "shardwise::DeviceMesh: [M1] a mesh has at least one named axis");
  static_assert(detail::distinct(names), "shardwise::DeviceMesh: [M2] axis names differ from each other");

  /// Not a mesh yet: every use but assignment is undefined.
  DeviceMesh() = default;
  explicit DeviceMesh(detail::Ref<const Grid> grid) : grid_(std::move(grid)) {}

  /// Sizes of the axes.
  const Shape<ndim>& shape() const { return grid_->shape; }
  /// Number of ranks.
  std::int64_t size() const { return static_cast<std::int64_t>(grid_->ranks.size()); }
  template <Name Axis>
  std::int64_t size() const {
    return grid_->shape[index<Axis>()];
  }
  /// This rank's place in the grid; empty for an outsider. PyTorch: `get_coordinate()`.
  std::optional<Shape<ndim>> coordinate() const {
    if (!is_member()) return std::nullopt;
    return grid_->coordinate;
  }
  /// This rank's place on one axis. Throws `Error` for an outsider. PyTorch: `get_local_rank()`.
  template <Name Axis>
  std::int64_t local_rank() const {
    SHARDWISE_REQUIRE(is_member(), "shardwise::DeviceMesh::local_rank: this rank is not part of the mesh");
    return grid_->coordinate[index<Axis>()];
  }
  std::int64_t local_rank() const
    requires(ndim == 1)
  {
    return local_rank<names[0]>();
  }
  bool is_member() const { return grid_->member; }
  /// World ranks in row-major order.
  const std::vector<int>& ranks() const { return grid_->ranks; }

  /// The sub-mesh of the named axes through this rank, in the mesh's own order; communicates only when a
  /// communicator over several axes is needed for the first time. PyTorch: `mesh["tp"]`.
  template <Name... Chosen>
  DeviceMesh<Comm, Chosen...> get() const {
    constexpr std::array<Name, sizeof...(Chosen)> chosen{Chosen...};
    static_assert(((detail::axis_index(names, Chosen) >= 0) && ...),
                  "shardwise::DeviceMesh::get: [M3] no axis has this name; the mesh's type lists its axes");
    static_assert(detail::ascending(names, chosen),
                  "shardwise::DeviceMesh::get: [M4] axes are named in the mesh's own order, each once");
    if constexpr (sizeof...(Chosen) == ndim) {
      return *this;
    } else {
      using Part = detail::Grid<Comm, sizeof...(Chosen)>;
      constexpr std::uint32_t set = axis_set(chosen);
      if (auto known = grid_->part(set)) return DeviceMesh<Comm, Chosen...>(detail::Ref<const Part>(known));
      auto grid = detail::make_ref<Part>();
      grid->names = chosen;
      grid->world = grid_->world;
      for (std::size_t i = 0; i < sizeof...(Chosen); ++i) {
        const auto axis = static_cast<std::size_t>(detail::axis_index(names, chosen[i]));
        grid->shape[i] = grid_->shape[axis];
        grid->coordinate[i] = grid_->coordinate[axis];
        if (is_member()) grid->groups.push_back({1u << i, grid_->group(1u << axis)});
      }
      grid->member = is_member();
      if (is_member()) {
        grid->ranks = ranks_through_me(set);
        if (sizeof...(Chosen) > 1) {
          (void)group(set);
          grid->groups.push_back({(1u << sizeof...(Chosen)) - 1u, grid_->group(set)});
        }
      }
      grid_->parts.push_back({set, grid});
      return DeviceMesh<Comm, Chosen...>(std::move(grid));
    }
  }

  /// A 1-d mesh over the named axes, called "dp_tp". Collective over the mesh the first time.
  /// PyTorch: `mesh._flatten()`.
  template <Name... Chosen>
  auto flatten() const {
    constexpr std::array<Name, sizeof...(Chosen)> chosen{Chosen...};
    static_assert(((detail::axis_index(names, Chosen) >= 0) && ...),
                  "shardwise::DeviceMesh::flatten: [M3] no axis has this name; the mesh's type lists its axes");
    static_assert(detail::ascending(names, chosen),
                  "shardwise::DeviceMesh::flatten: [M4] axes are named in the mesh's own order, each once");
    constexpr Name name = detail::joined(chosen);
    using Part = detail::Grid<Comm, 1>;
    constexpr std::uint32_t set = axis_set(chosen);
    constexpr std::uint32_t key = set | 1u << 31;
    if (auto known = grid_->part(key)) return DeviceMesh<Comm, name>(detail::Ref<const Part>(known));
    auto grid = detail::make_ref<Part>();
    grid->names = {name};
    grid->world = grid_->world;
    grid->member = is_member();
    grid->shape[0] = 1;
    for (const Name& one : chosen) {
      const auto axis = static_cast<std::size_t>(detail::axis_index(names, one));
      grid->shape[0] *= grid_->shape[axis];
      grid->coordinate[0] = grid->coordinate[0] * grid_->shape[axis] + grid_->coordinate[axis];
    }
    if (is_member()) {
      grid->ranks = ranks_through_me(set);
      (void)group(set);
      grid->groups.push_back({1u, grid_->group(set)});
    }
    grid_->parts.push_back({key, grid});
    return DeviceMesh<Comm, name>(std::move(grid));
  }

  /// The communicator over a set of axes (bit a for axis a) through this rank, ranks in row-major order of these axes.
  /// The first call for a set of several axes is collective over the mesh. Members only.
  const Comm& group(std::uint32_t set) const {
    if constexpr (ndim == 1) {
      return *grid_->groups[0].comm;  // there is no other: made with the mesh
    } else {
      const Comm* known = find(set);
      return known != nullptr ? *known : make_group(set);
    }
  }
  template <Name Axis>
  const Comm& communicator() const {
    return group(1u << index<Axis>());
  }

  /// The same ranks in the same grid (names are part of the type already).
  friend bool operator==(const DeviceMesh& a, const DeviceMesh& b) { return a.grid_ == b.grid_ || a.lies_as(b); }
  const void* identity() const { return grid_.get(); }

  template <Name Axis>
  static constexpr std::size_t index() {
    static_assert(detail::axis_index(names, Axis) >= 0,
                  "shardwise::DeviceMesh: [M3] no axis has this name; the mesh's type lists its axes");
    return static_cast<std::size_t>(detail::axis_index(names, Axis));
  }

  /// Outside functions read the coordinate without the check for membership.
  const Grid& grid() const { return *grid_; }

 private:
  [[gnu::noinline]] bool lies_as(const DeviceMesh& other) const {
    return grid_->shape == other.grid_->shape && grid_->ranks == other.grid_->ranks;
  }

  const Comm* find(std::uint32_t set) const {
    for (const auto& known : grid_->groups)
      if (known.axes == set) return known.comm.get();
    return nullptr;
  }

  [[gnu::noinline, gnu::cold]] const Comm& make_group(std::uint32_t set) const {
    const std::uint32_t all = (1u << ndim) - 1u;
    std::int64_t color = 0;
    std::int64_t key = 0;
    Name name;
    for (std::size_t a = 0; a < ndim; ++a) {
      if ((set >> a & 1u) == 0) {
        color = color * grid_->shape[a] + grid_->coordinate[a];
      } else {
        key = key * grid_->shape[a] + grid_->coordinate[a];
        name = name.empty() ? names[a] : join_names(name, names[a]);
      }
    }
    const Comm* whole = find(all);
    if constexpr (detail::GroupsListedRanks<Comm>) {
      const Comm part = grid_->world->subgroup(ranks_through_me(set)).with_deadline(whole->deadline());
      grid_->groups.push_back({set, detail::make_ref<Comm>(part.with_axis(name))});
    } else {
      auto part = whole->split(static_cast<int>(color), static_cast<int>(key));
      grid_->groups.push_back({set, detail::make_ref<Comm>(part->with_axis(name))});
    }
    return *grid_->groups.back().comm;
  }

  template <std::size_t M>
  static constexpr std::uint32_t axis_set(const std::array<Name, M>& chosen) {
    std::uint32_t set = 0;
    for (const Name& one : chosen)
      if (const int axis = detail::axis_index(names, one); axis >= 0) set |= 1u << axis;
    return set;
  }

  [[gnu::cold]] std::vector<int> ranks_through_me(std::uint32_t set) const {
    std::vector<int> chosen;
    for (std::size_t r = 0; r < grid_->ranks.size(); ++r) {
      auto rest = static_cast<std::int64_t>(r);
      bool mine = true;
      for (std::size_t a = ndim; a-- > 0;) {
        const std::int64_t c = rest % grid_->shape[a];
        rest /= grid_->shape[a];
        if ((set >> a & 1u) == 0 && c != grid_->coordinate[a]) mine = false;
      }
      if (mine) chosen.push_back(grid_->ranks[r]);
    }
    return chosen;
  }

  detail::Ref<const Grid> grid_;
};

namespace detail {

// Where `me` stands among the `ranks` of a mesh of `size` ranks; -1 where it does not.
template <class = void>
[[gnu::cold]] int place_among(const std::vector<int>& ranks, std::int64_t size, int world_size, int me) {
  SHARDWISE_REQUIRE(static_cast<std::int64_t>(ranks.size()) == size,
                    text("shardwise::init_device_mesh: ", ranks.size(), " ranks are listed for a mesh of ", size));
  int position = -1;
  List<bool> listed(static_cast<std::size_t>(world_size));
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const int r = ranks[i];
    SHARDWISE_REQUIRE(r >= 0 && r < world_size,
                      text("shardwise::init_device_mesh: rank ", r, " is not in a world of ", world_size));
    bool& seen = listed[static_cast<std::size_t>(r)];
    SHARDWISE_REQUIRE(!seen, text("shardwise::init_device_mesh: rank ", r, " is listed twice"));
    seen = true;
    if (r == me) position = static_cast<int>(i);
  }
  return position;
}

// Whether the tensors on a mesh can be reached by the host's loads and stores: its communicator says.
template <class Mesh>
inline constexpr bool mesh_on_host = Mesh::Communicator::memory_space == MemorySpace::host;

}  // namespace detail

/// Lays the ranks of `world` out in a grid: `init_device_mesh<"dp", "tp">(world, {2, 4})`.
///
/// Ranks: all of the world, also those that the grid leaves out. Throws `Error` where the grid is larger than the
/// world, a size is not positive, or `options.ranks` repeats a rank, misses the grid's size or leaves the world.
/// PyTorch: `init_device_mesh`.
template <Name... Axes, class Comm, std::size_t N>
[[gnu::cold]] DeviceMesh<Comm, Axes...> init_device_mesh(const Comm& world, const Shape<N>& shape,
                                                         const MeshOptions& options = {}) {
  static_assert(N == sizeof...(Axes),
                "shardwise::init_device_mesh: [M6] one size per axis: init_device_mesh<\"dp\", \"tp\">(world, {2, 4})");
  static_assert(
      RankedCommunicator<Comm>,
      "shardwise::init_device_mesh: [M5] the first argument is a communicator, such as run_ranks hands to its function; "
      "see the concept Communicator");
  static_assert(
      !RankedCommunicator<Comm> || detail::LaysOutMeshes<Comm>,
      "shardwise::init_device_mesh: [M7] a communicator that lays out a mesh has memory_space, axis, with_axis, id, deadline, "
      "with_deadline and split, as the concept Communicator says");
  constexpr std::size_t n = sizeof...(Axes);
  auto grid = detail::make_ref<detail::Grid<Comm, n>>();
  grid->names = {Axes...};
  grid->world = detail::make_ref<Comm>(world);
  std::int64_t size = 1;
  for (std::size_t a = 0; a < n; ++a) {
    SHARDWISE_REQUIRE(shape[a] > 0, detail::text("shardwise::init_device_mesh: axis \"", grid->names[a].view(),
                                                 "\" has size ", shape[a], "; sizes are positive"));
    grid->shape[a] = shape[a];
    size *= shape[a];
  }
  SHARDWISE_REQUIRE(size <= world.size(), detail::text("shardwise::init_device_mesh: a mesh of ", size,
                                                       " ranks does not fit a world of ", world.size()));
  grid->ranks = options.ranks;
  if (grid->ranks.empty())
    for (int r = 0; r < static_cast<int>(size); ++r) grid->ranks.push_back(r);
  const int position = detail::place_among(grid->ranks, size, world.size(), world.rank());
  grid->member = position >= 0;
  bool in_order = size == world.size();
  for (std::size_t i = 0; i < grid->ranks.size(); ++i) in_order = in_order && grid->ranks[i] == static_cast<int>(i);

  detail::Ref<const Comm> all;
  const Name name = detail::joined(grid->names);
  if (in_order) {
    all = detail::make_ref<Comm>(world.with_axis(name));  // the world itself: no new group
  } else if constexpr (detail::GroupsListedRanks<Comm>) {
    if (grid->member) all = detail::make_ref<Comm>(world.subgroup(grid->ranks).with_axis(name));
  } else if (auto part = world.split(grid->member ? 0 : -1, position < 0 ? 0 : position)) {
    all = detail::make_ref<Comm>(part->with_axis(name));
  }
  if (all && options.deadline.count() > 0) all = detail::make_ref<Comm>(all->with_deadline(options.deadline));

  if (grid->member) {
    auto rest = static_cast<std::int64_t>(position);
    for (std::size_t a = n; a-- > 0;) {
      grid->coordinate[a] = rest % grid->shape[a];
      rest /= grid->shape[a];
    }
    grid->groups.reserve(8);
    grid->groups.push_back({(1u << n) - 1u, std::move(all)});
  }
  DeviceMesh<Comm, Axes...> mesh(std::move(grid));
  if (mesh.is_member())
    for (std::size_t a = 0; a < n; ++a) mesh.group(1u << a);
  return mesh;
}
template <Name... Axes, class Comm, std::size_t N>
DeviceMesh<Comm, Axes...> init_device_mesh(const Comm& world, const std::int64_t (&shape)[N],
                                           const MeshOptions& options = {}) {
  Shape<N> sizes{};
  for (std::size_t a = 0; a < N; ++a) sizes[a] = shape[a];
  return init_device_mesh<Axes...>(world, sizes, options);
}

}  // namespace shardwise
