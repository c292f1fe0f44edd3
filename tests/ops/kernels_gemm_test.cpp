// gemm against the triple loop.
#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include <shardwise/ops/kernels/gemm.hpp>

namespace {

using shardwise::detail::kernels::gemm;
using shardwise::detail::kernels::gemm_tiled;

// Small integers: every product of the test is exact in every element type, so the results are compared as they are.
struct Numbers {
  std::uint64_t state = 12345;
  int next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>(state >> 62) - 1;
  }
  template <class T>
  std::vector<T> vector(std::int64_t n) {
    std::vector<T> v(static_cast<std::size_t>(n));
    for (T& x : v) x = static_cast<T>(next());
    return v;
  }
};

template <class T>
T element(const std::vector<T>& x, bool trans, std::int64_t rows, std::int64_t columns, std::int64_t i,
          std::int64_t j) {
  return x[static_cast<std::size_t>(trans ? j * rows + i : i * columns + j)];
}

template <class T, class F>
void check_size(std::int64_t m, std::int64_t n, std::int64_t k, F product) {
  Numbers numbers;
  const std::vector<T> a = numbers.vector<T>(m * k), b = numbers.vector<T>(k * n), before = numbers.vector<T>(m * n);
  for (int variant = 0; variant < 8; ++variant) {
    const bool trans_a = (variant & 1) != 0, trans_b = (variant & 2) != 0, accumulate = (variant & 4) != 0;
    std::vector<T> c = before;
    if (!accumulate && std::numeric_limits<T>::has_quiet_NaN)  // what was there must not leak in
      c.assign(c.size(), std::numeric_limits<T>::quiet_NaN());
    product(trans_a, trans_b, m, n, k, a.data(), b.data(), c.data(), accumulate);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        using A = shardwise::Accumulator<T>;
        A sum = accumulate ? static_cast<A>(before[static_cast<std::size_t>(i * n + j)]) : A(0);
        for (std::int64_t p = 0; p < k; ++p)
          sum = static_cast<A>(sum + static_cast<A>(element(a, trans_a, m, k, i, p)) *
                                         static_cast<A>(element(b, trans_b, k, n, p, j)));
        wrong += c[static_cast<std::size_t>(i * n + j)] == static_cast<T>(sum) ? 0 : 1;
      }
    }
    INFO("m ", m, " n ", n, " k ", k, " transposes ", trans_a, " ", trans_b, " accumulate ", accumulate);
    CHECK(wrong == 0);
  }
}

template <class T, class F>
void check_sizes(F product) {
  for (const std::int64_t m : {0, 1, 2, 3, 4, 5, 8, 12, 17, 33})
    for (const std::int64_t n : {0, 1, 2, 3, 7, 8, 9, 16, 33})
      for (const std::int64_t k : {0, 1, 2, 5, 16, 33}) check_size<T>(m, n, k, product);
  check_size<T>(40, 50, 300, product);
}

template <class T>
void check_gemm() {
  check_sizes<T>([](auto... args) { gemm<T>(args...); });
}

TEST_CASE("a matrix product of float equals the triple loop for all transposes") {
  check_gemm<float>();
  for (std::int64_t m = 0; m <= 33; ++m)
    check_size<float>(m, 33 - m, m / 2 + 1, [](auto... args) { gemm<float>(args...); });
}
TEST_CASE("a matrix product of double equals the triple loop for all transposes") {
  check_gemm<double>();
  for (std::int64_t m = 0; m <= 33; ++m) check_size<double>(33 - m, m, m, [](auto... args) { gemm<double>(args...); });
}
TEST_CASE("a matrix product of integers equals the triple loop") {
  check_gemm<std::int32_t>();
  check_gemm<std::uint8_t>();
  check_gemm<std::int64_t>();
}
TEST_CASE("a matrix product of complex numbers equals the triple loop") { check_gemm<std::complex<double>>(); }
TEST_CASE("a matrix product of 16-bit numbers is summed in float") {
  check_gemm<shardwise::half>();
  check_gemm<shardwise::bfloat16>();
}
TEST_CASE("the tiled product, also of floats, equals the triple loop") {
  check_sizes<float>([](bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                        const float* b, float* c, bool accumulate) {
    if (k > 0)
      gemm_tiled<float>(ta, tb, m, n, k, a, b, c, accumulate);
    else
      gemm<float>(ta, tb, m, n, k, a, b, c, accumulate);
  });
}

}  // namespace
