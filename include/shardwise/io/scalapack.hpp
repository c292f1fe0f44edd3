// ScaLAPACK's local matrices (block-cyclic, column-major, with a leading dimension) in and out of distributed tensors: by a
// copy, or as the transposed matrix without one. Knows the layout only, needs no ScaLAPACK. Layer: io.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include <shardwise/base/text.hpp>
#include <shardwise/tensor/factories.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

// Rows along one axis of the process grid, columns along another.
template <std::size_t N>
constexpr bool is_scalapack_layout(const PlacementList<N>& list) {
  int rows = 0;
  int columns = 0;
  for (const PlacementValue& p : list) {
    if (p.is_replicate()) continue;
    if (p.kind != PlacementKind::block_cyclic) return false;
    ++(p.dim == 0 ? rows : columns);
  }
  return rows <= 1 && columns <= 1;
}

constexpr PlacementValue transposed_matrix(PlacementValue p) {
  if (p.is_split()) p.dim = 1 - p.dim;
  return p;
}
template <Placement P>
using TransposedMatrix = placement_type<placement_code(transposed_matrix(placement_value<P>))>;

// to[i * to_row + j * to_column] = from[i * from_row + j * from_column], in squares that stay in the first-level cache.
template <class T>
void copy_matrix(const T* from, std::int64_t from_row, std::int64_t from_column, T* to, std::int64_t to_row,
                 std::int64_t to_column, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t side = 32;
  for (std::int64_t i = 0; i < rows; i += side)
    for (std::int64_t j = 0; j < columns; j += side) {
      const std::int64_t i_end = i + side < rows ? i + side : rows;
      const std::int64_t j_end = j + side < columns ? j + side : columns;
      for (std::int64_t r = i; r < i_end; ++r)
        for (std::int64_t c = j; c < j_end; ++c) to[r * to_row + c * to_column] = from[r * from_row + c * from_column];
    }
}

inline void require_leading_dimension(const char* function, std::int64_t lld, std::int64_t rows) {
  SHARDWISE_REQUIRE(lld >= (rows > 1 ? rows : 1),
                    text(function, ": a leading dimension of ", lld, " for a local matrix of ", rows, " rows"),
                    ShapeError);
}

template <class Mesh, class... P>
constexpr bool check_scalapack() {
  static_assert(sizeof...(P) == Mesh::ndim, "shardwise::from_scalapack: [C1] one placement per mesh axis");
  constexpr bool fits = is_scalapack_layout(PlacementList<sizeof...(P)>{placement_value<Normalized<P, 2>>...});
  static_assert(fits,
                "shardwise::from_scalapack: [C2] ScaLAPACK deals rows to one mesh axis and columns to another: write "
                "BlockCyclic<0, MB> and BlockCyclic<1, NB>, Replicate elsewhere");
  return sizeof...(P) == Mesh::ndim && fits;
}

}  // namespace detail

/// A copy of a matrix of ScaLAPACK's: `from_scalapack<BlockCyclic<0, MB>, BlockCyclic<1, NB>>(local, lld, {m, n}, mesh)`.
///
/// The axis of `BlockCyclic<0, MB>` is the process row, that of `BlockCyclic<1, NB>` the process column of the process grid, and the
/// first block lies on the first rank (RSRC = CSRC = 0). `local` is this rank's column-major part with `lld` elements from a
/// column to the next. Moves nothing between ranks. Throws `ShapeError` where `lld` is below the local rows.
template <Placement... P, Element T, class Comm, Name... Axes>
auto from_scalapack(const T* local, std::int64_t lld, const std::int64_t (&shape)[2],
                    const DeviceMesh<Comm, Axes...>& mesh) {
  using Mesh = DeviceMesh<Comm, Axes...>;
  constexpr bool fits = detail::check_scalapack<Mesh, P...>();
  if constexpr (fits) {
    auto x = detail::make_placed<T, P...>(mesh, detail::to_shape(shape));
    const auto part = x.local_shape();
    detail::require_leading_dimension("shardwise::from_scalapack", lld, part[0]);
    detail::copy_matrix(local, 1, lld, x.data(), part[1], 1, part[0], part[1]);
    return x;
  }
}

/// Copies this rank's part into ScaLAPACK's column-major form, `lld` elements from a column to the next. What lies between
/// the columns is left as it is. Throws `ShapeError` where `lld` is below the local rows.
template <Element T, class Mesh, class... P>
void to_scalapack(const DTensor<T, 2, Mesh, P...>& x, T* local, std::int64_t lld) {
  constexpr bool fits = detail::is_scalapack_layout(DTensor<T, 2, Mesh, P...>::placements);
  static_assert(fits,
                "shardwise::to_scalapack: [C3] ScaLAPACK holds block-cyclic matrices; redistribute<BlockCyclic<0, MB>, "
                "BlockCyclic<1, NB>>(x) first");
  if constexpr (fits) {
    const auto part = x.local_shape();
    detail::require_leading_dimension("shardwise::to_scalapack", lld, part[0]);
    detail::copy_matrix(x.data(), part[1], 1, local, 1, lld, part[0], part[1]);
  }
}

/// The transposed matrix, of shape {n, m}, in ScaLAPACK's own memory: a column-major part is the row-major part of the
/// transposed matrix. The columns must follow each other (LLD is the number of local rows); the memory must outlive the tensor.
/// Use `redistribute_into` or `to_scalapack` to write into it, `transpose` for the matrix itself.
template <Placement... P, Element T, class Comm, Name... Axes>
auto view_scalapack_transposed(T* local, const std::int64_t (&shape)[2], const DeviceMesh<Comm, Axes...>& mesh) {
  using Mesh = DeviceMesh<Comm, Axes...>;
  constexpr bool fits = detail::check_scalapack<Mesh, P...>();
  if constexpr (fits) {
    using Y = DTensor<T, 2, Mesh, detail::TransposedMatrix<Normalized<P, 2>>...>;
    const detail::Extents global(Shape<2>{shape[1], shape[0]});
    detail::check_sizes(global);
    return detail::share_tensor<T, 2, typename Y::layout_type>(
        detail::Buffer::view(local), global, detail::local_extents<typename Y::layout_type>(mesh, global), mesh);
  }
}

}  // namespace shardwise
