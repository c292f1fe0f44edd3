// Eigen's matrices and tensors on the same memory, without a copy: as_eigen(tensor) and view(matrix). Layer: ops.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include <Eigen/Core>

#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

namespace detail {

template <class T, std::size_t R>
using EigenOf = std::conditional_t<R == 1, Eigen::Matrix<T, Eigen::Dynamic, 1>,
                                   Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

template <class T, std::size_t R, class Elements>
auto map_of(Elements* data, const Extents& shape) {
  using Matrix = std::conditional_t<std::is_const_v<Elements>, const EigenOf<T, R>, EigenOf<T, R>>;
  if constexpr (R == 1)
    return Eigen::Map<Matrix>(data, static_cast<Eigen::Index>(shape[0]));
  else
    return Eigen::Map<Matrix>(data, static_cast<Eigen::Index>(shape[0]), static_cast<Eigen::Index>(shape[1]));
}

}  // namespace detail

/// The elements (of a distributed tensor: of this rank's part) as an `Eigen::Map`, a row-major matrix for rank 2 and a column
/// vector for rank 1. Shares the memory and does not keep it alive; what is written is not seen by the tape.
template <class T, std::size_t R, class L>
auto as_eigen(BasicTensor<T, R, L>& x) {
  static_assert(R == 1 || R == 2,
                "shardwise::as_eigen: [E1] Eigen has vectors and matrices: rank 1 or 2; reshape(x, shape) first");
  if constexpr (R == 1 || R == 2) return detail::map_of<T, R>(x.data(), x.impl()->local);
}
template <class T, std::size_t R, class L>
auto as_eigen(const BasicTensor<T, R, L>& x) {
  static_assert(R == 1 || R == 2,
                "shardwise::as_eigen: [E1] Eigen has vectors and matrices: rank 1 or 2; reshape(x, shape) first");
  if constexpr (R == 1 || R == 2) return detail::map_of<T, R>(static_cast<const T*>(x.data()), x.impl()->local);
}

namespace detail {

template <class M>
auto view_of(M& matrix) {
  using Plain = std::remove_cv_t<M>;
  using T = typename Plain::Scalar;
  constexpr bool vector = Plain::ColsAtCompileTime == 1;
  constexpr bool one_row = Plain::RowsAtCompileTime == 1;
  constexpr bool row_major = Plain::IsRowMajor || vector || one_row;
  constexpr bool writable = !std::is_const_v<M> && (Eigen::internal::traits<Plain>::Flags & Eigen::LvalueBit) != 0;
  static_assert(row_major,
                "shardwise::view: [E2] the matrix is column-major and tensors are row-major; declare it with "
                "Eigen::RowMajor, or copy it into one");
  static_assert(!row_major || writable,
                "shardwise::view: [E3] a tensor can be written, and the matrix is const or a temporary; copy it");
  static_assert(Element<T>, "shardwise::view: [E4] the scalar of the matrix is an element type; cast the matrix");
  constexpr std::size_t rank = vector ? 1 : 2;
  if constexpr (!Element<T>) {
    return Tensor<float, rank>();
  } else if constexpr (row_major && writable) {
    Shape<rank> shape{};
    shape[0] = static_cast<std::int64_t>(matrix.rows());
    if constexpr (rank == 2) shape[1] = static_cast<std::int64_t>(matrix.cols());
    const bool dense = matrix.size() == 0 || (matrix.innerStride() == 1 &&
                                              (vector || matrix.rows() <= 1 || matrix.outerStride() == matrix.cols()));
    SHARDWISE_REQUIRE(dense,
                      "shardwise::view: a matrix of shape " + shardwise::to_string(shape) +
                          " whose rows do not lie directly behind each other; copy it",
                      ShapeError);
    return Tensor<T, rank>::view(matrix.data(), shape);
  } else {
    return Tensor<T, rank>();
  }
}

}  // namespace detail

/// A tensor on the memory of a matrix, of a vector (rank 1) or of an `Eigen::Map`: row-major, rows directly behind each
/// other, and alive as long as the tensor is used. Throws `ShapeError` where the rows are further apart.
template <class Scalar, int Rows, int Columns, int Options, int MaxRows, int MaxColumns>
auto view(Eigen::Matrix<Scalar, Rows, Columns, Options, MaxRows, MaxColumns>& matrix) {
  return detail::view_of(matrix);
}
template <class Scalar, int Rows, int Columns, int Options, int MaxRows, int MaxColumns>
auto view(const Eigen::Matrix<Scalar, Rows, Columns, Options, MaxRows, MaxColumns>& matrix) {  // a sentence, no tensor
  return detail::view_of(matrix);
}
template <class Matrix, int Options, class Stride>
auto view(const Eigen::Map<Matrix, Options, Stride>& map) {
  auto same = map;  // a map is a handle: writing through a copy writes the same memory
  return detail::view_of(same);
}

}  // namespace shardwise
