// ScaLAPACK's local layout against its index formulas (numroc, indxl2g, indxg2p, indxg2l), written out here.
#include <shardwise/core.hpp>
#include <shardwise/io/scalapack.hpp>
#include <shardwise/testing/doctest.hpp>

#include <algorithm>
#include <complex>
#include <vector>

#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

// ScaLAPACK counts from one here as there; the first block lies on process 0.
std::int64_t numroc(std::int64_t n, std::int64_t nb, std::int64_t process, std::int64_t processes) {
  const std::int64_t blocks = n / nb;
  std::int64_t rows = blocks / processes * nb;
  const std::int64_t extra = blocks % processes;
  if (process < extra)
    rows += nb;
  else if (process == extra)
    rows += n % nb;
  return rows;
}
std::int64_t indxl2g(std::int64_t local, std::int64_t nb, std::int64_t process, std::int64_t processes) {
  return processes * nb * ((local - 1) / nb) + (local - 1) % nb + process * nb + 1;
}
std::int64_t indxg2p(std::int64_t global, std::int64_t nb, std::int64_t processes) {
  return (global - 1) / nb % processes;
}
std::int64_t indxg2l(std::int64_t global, std::int64_t nb, std::int64_t processes) {
  return nb * ((global - 1) / (nb * processes)) + (global - 1) % nb + 1;
}

template <class T>
T entry(std::int64_t row, std::int64_t column) {  // counted from zero
  if constexpr (is_complex<T>)
    return T(static_cast<typename T::value_type>(row * 100 + column), static_cast<typename T::value_type>(-row));
  else
    return static_cast<T>(row * 100 + column);
}

// A rank's matrix as ScaLAPACK holds it; `gap` elements, -1 each, follow every column.
template <class T>
struct LocalMatrix {
  LocalMatrix(std::int64_t m, std::int64_t n, std::int64_t mb, std::int64_t nb, std::int64_t p, std::int64_t q,
              std::int64_t np, std::int64_t nq, std::int64_t gap)
      : rows(numroc(m, mb, p, np)), columns(numroc(n, nb, q, nq)), lld(std::max<std::int64_t>(1, rows + gap)),
        data(static_cast<std::size_t>(lld * columns + 1), static_cast<T>(-1)) {
    for (std::int64_t j = 1; j <= columns; ++j)
      for (std::int64_t i = 1; i <= rows; ++i)
        data[static_cast<std::size_t>(i - 1 + (j - 1) * lld)] =
            entry<T>(indxl2g(i, mb, p, np) - 1, indxl2g(j, nb, q, nq) - 1);
  }
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t lld;
  std::vector<T> data;
};

template <class T>
Tensor<T, 2> whole(std::int64_t m, std::int64_t n) {
  Tensor<T, 2> x(Shape<2>{m, n});
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) x.data()[i * n + j] = entry<T>(i, j);
  return x;
}

template <class T, std::int64_t MB, std::int64_t NB, class Mesh>
void round_trip(const Mesh& mesh, std::int64_t m, std::int64_t n, std::int64_t gap) {
  const auto at = *mesh.coordinate();
  const LocalMatrix<T> a(m, n, MB, NB, at[0], at[1], mesh.shape()[0], mesh.shape()[1], gap);
  const auto x = from_scalapack<BlockCyclic<0, MB>, BlockCyclic<1, NB>>(a.data.data(), a.lld, {m, n}, mesh);
  CHECK(x.local_shape() == Shape<2>{a.rows, a.columns});
  CHECK(equal(x.full_tensor(), whole<T>(m, n)));
  CHECK(
      equal(x.to_local(), distribute_tensor<BlockCyclic<0, MB>, BlockCyclic<1, NB>>(whole<T>(m, n), mesh).to_local()));
  for (std::int64_t i = 0; i < a.rows; ++i)
    CHECK(x.global_index(0, i) == indxl2g(i + 1, MB, at[0], mesh.shape()[0]) - 1);
  for (std::int64_t j = 0; j < a.columns; ++j)
    CHECK(x.global_index(1, j) == indxl2g(j + 1, NB, at[1], mesh.shape()[1]) - 1);

  std::vector<T> back(a.data.size(), static_cast<T>(-1));
  to_scalapack(x, back.data(), a.lld);
  CHECK(back == a.data);  // the gaps too
}

}  // namespace

SHARDWISE_TEST_RANKS("matrices of every shape go in and out of ScaLAPACK's layout", 6) {
  const auto mesh = init_device_mesh<"row", "column">(world, {2, 3});
  for (const std::int64_t m : {0, 1, 2, 5, 8, 33})
    for (const std::int64_t n : {0, 1, 3, 7, 40})
      for (const std::int64_t gap : {0, 3}) {
        round_trip<double, 2, 3>(mesh, m, n, gap);
        round_trip<float, 4, 1>(mesh, m, n, gap);
      }
  round_trip<std::complex<double>, 2, 2>(mesh, 9, 11, 1);
  round_trip<double, 64, 64>(mesh, 130, 257, 2);
}

SHARDWISE_TEST_RANKS("the owner of an element is ScaLAPACK's, also with the process columns first", 6) {
  const auto mesh = init_device_mesh<"column", "row">(world, {3, 2});
  const auto at = *mesh.coordinate();
  const auto x = distribute_tensor<BlockCyclic<1, 2>, BlockCyclic<0, 3>>(whole<double>(11, 13), mesh);
  std::int64_t mine = 0;
  for (std::int64_t i = 1; i <= 11; ++i)
    for (std::int64_t j = 1; j <= 13; ++j)
      if (indxg2p(i, 3, 2) == at[1] && indxg2p(j, 2, 3) == at[0]) {
        ++mine;
        const std::int64_t row = indxg2l(i, 3, 2) - 1;
        const std::int64_t column = indxg2l(j, 2, 3) - 1;
        CHECK(x.data()[row * x.local_shape()[1] + column] == entry<double>(i - 1, j - 1));
      }
  CHECK(mine == x.size());
}

SHARDWISE_TEST_RANKS("a column-major part is the row-major part of the transposed matrix, without a copy", 4) {
  const auto mesh = init_device_mesh<"row", "column">(world, {2, 2});
  const auto at = *mesh.coordinate();
  LocalMatrix<double> a(9, 14, 2, 4, at[0], at[1], 2, 2, 0);
  auto x = view_scalapack_transposed<BlockCyclic<0, 2>, BlockCyclic<1, 4>>(a.data.data(), {9, 14}, mesh);
  static_assert(
      std::is_same_v<decltype(x),
                     DTensor<double, 2, std::remove_const_t<decltype(mesh)>, BlockCyclic<1, 2>, BlockCyclic<0, 4>>>);
  CHECK(x.data() == a.data.data());
  CHECK(x.shape() == Shape<2>{14, 9});
  const auto full = x.full_tensor();
  for (std::int64_t i = 0; i < 9; ++i)
    for (std::int64_t j = 0; j < 14; ++j) CHECK(full.data()[j * 9 + i] == entry<double>(i, j));

  // Written to in place: a row-sharded tensor becomes ScaLAPACK's matrix in one exchange.
  const auto rows = redistribute<Shard<0>, Replicate>(x);
  std::fill(a.data.begin(), a.data.end(), 0.0);
  NoGrad guard;
  redistribute_into(rows, x);
  a.data.back() = -1;
  CHECK(a.data == LocalMatrix<double>(9, 14, 2, 4, at[0], at[1], 2, 2, 0).data);
}

SHARDWISE_TEST_RANKS("from one block size and grid to another, as pdgemr2d does", 4) {
  const auto square = init_device_mesh<"row", "column">(world, {2, 2});
  const auto tall = init_device_mesh<"row", "column">(world, {4, 1});
  const auto a = *square.coordinate();
  const auto b = *tall.coordinate();
  const LocalMatrix<double> from(19, 23, 2, 3, a[0], a[1], 2, 2, 1);
  const LocalMatrix<double> to(19, 23, 5, 4, b[0], b[1], 4, 1, 2);
  const auto x = from_scalapack<BlockCyclic<0, 2>, BlockCyclic<1, 3>>(from.data.data(), from.lld, {19, 23}, square);
  const auto y = redistribute<BlockCyclic<0, 5>, BlockCyclic<1, 4>>(x, tall);
  std::vector<double> out(to.data.size(), -1.0);
  to_scalapack(y, out.data(), to.lld);
  CHECK(out == to.data);
}

SHARDWISE_TEST_RANKS("a leading dimension below the local rows is refused", 2) {
  const auto mesh = init_device_mesh<"row", "column">(world, {2, 1});
  const std::vector<float> memory(16, 0.0f);
  const std::string message = thrown<ShapeError>(
      [&] { (void)from_scalapack<BlockCyclic<0, 2>, BlockCyclic<1, 2>>(memory.data(), 3, {8, 4}, mesh); });
  CHECK(contains(message, "a leading dimension of 3 for a local matrix of 4 rows"));
}
