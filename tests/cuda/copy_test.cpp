// Strided copies, fills, casts and table lookups of a device against loops on the host.
#include <complex>
#include <numeric>
#include <string>
#include <utility>

#include <shardwise/ops/cast.hpp>
#include <shardwise/ops/kernels/copy.hpp>
#include <shardwise/ops/kernels/index.hpp>

#include "cuda/device.hpp"

namespace {

using namespace test;
using shardwise::DType;
using shardwise::dtype_of;

template <class T>
std::vector<T> counted(std::int64_t n) {
  std::vector<T> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto bits = static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15u;
    std::memcpy(static_cast<void*>(&values[static_cast<std::size_t>(i)]), &bits, std::min(sizeof(T), sizeof bits));
  }
  return values;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
void check_copy(int rank, const std::int64_t* size, const std::int64_t* from, const std::int64_t* to,
                std::int64_t src_size, std::int64_t dst_size, std::size_t shift) {
  const std::vector<T> source = counted<T>(src_size);
  std::vector<T> want(static_cast<std::size_t>(dst_size));
  const OnDevice<T> src(source, shift), dst(want, shift);
  kernels::strided_copy(rank, size, source.data(), from, want.data(), to);
  device::strided_copy(sizeof(T), rank, size, src.data(), from, dst.data(), to, stream());
  CHECK(same_bytes(dst.read(), want));
}

// Strides of a random order of the dimensions, with some gaps; the elements that they span.
std::int64_t random_strides(Random& random, int rank, const std::int64_t* size, std::int64_t* stride) {
  int order[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  for (int i = rank - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  std::int64_t step = 1;
  for (int i = 0; i < rank; ++i) {
    stride[order[i]] = step;
    step *= std::max<std::int64_t>(size[order[i]], 1) + (random.below(3) == 0 ? 1 : 0);
  }
  return step;
}

template <class T>
void random_copies(std::uint64_t seed, int rounds) {
  Random random{seed};
  for (int round = 0; round < rounds; ++round) {
    const int rank = static_cast<int>(random.below(round % 8 == 0 ? 9 : 5));
    std::int64_t size[8] = {}, from[8] = {}, to[8] = {};
    std::int64_t total = 1;
    for (int d = 0; d < rank; ++d)
      total *= size[d] = rank > 4                ? 1 + random.below(3)
                         : random.below(20) == 0 ? 0
                         : random.below(3) == 0  ? 8 * (1 + random.below(5))
                                                 : 1 + random.below(6);
    if (total > 20000) continue;
    const std::int64_t src_size = random_strides(random, rank, size, from);
    const std::int64_t dst_size = random_strides(random, rank, size, to);
    for (int d = 0; d < rank; ++d)
      if (random.below(8) == 0) from[d] = 0;  // repeated
    check_copy<T>(rank, size, from, to, src_size, dst_size, static_cast<std::size_t>(random.below(3)));
  }
}

SHARDWISE_DEVICE_TEST(
    "strided copies equal those of the host, for elements of 1, 2, 4, 8 and 16 bytes, wherever they lie") {
  random_copies<std::uint8_t>(11, 120);
  random_copies<bfloat16>(12, 120);
  random_copies<float>(13, 120);
  random_copies<double>(14, 120);
  random_copies<std::complex<double>>(15, 120);
}

SHARDWISE_DEVICE_TEST("transposes of whole and of cut tiles equal those of the host") {
  for (const std::int64_t rows : {8, 31, 32, 33, 65, 130})
    for (const std::int64_t columns : {8, 32, 63, 64, 100}) {
      const std::int64_t size[] = {2, rows, columns}, from[] = {rows * columns, columns, 1},
                         to[] = {rows * columns, 1, rows};
      check_copy<float>(3, size, from, to, 2 * rows * columns, 2 * rows * columns, 0);
      check_copy<std::uint8_t>(3, size, from, to, 2 * rows * columns, 2 * rows * columns, 1);
      check_copy<std::complex<double>>(3, size, from, to, 2 * rows * columns, 2 * rows * columns, 0);
    }
}

template <class T>
void check_fill(T value) {
  for (const std::int64_t n : {0, 1, 3, 16, 1000})
    for (const std::size_t shift : {0u, 1u}) {
      const OnDevice<T> out(static_cast<std::size_t>(n), shift);
      device::fill(dtype_of<T>, out.data(), &value, n, stream());
      CHECK(same_bytes(out.read(), std::vector<T>(static_cast<std::size_t>(n), value)));
    }
}

SHARDWISE_DEVICE_TEST("fills write every element and nothing else") {
  check_fill<std::uint8_t>(200);
  check_fill<half>(half(1.5f));
  check_fill<float>(-3.25f);
  check_fill<std::int64_t>(-(std::int64_t{1} << 40));
  check_fill<std::complex<double>>({1.5, -2.5});
}

template <class T, class U>
void check_cast(Random& random) {
  for (const std::int64_t n : {1, 4, 5, 300}) {
    const auto x = random_values<T>(random, n, 0, 100);
    std::vector<U> want(x.size());
    shardwise::detail::convert_elements(x.data(), want.data(), n);
    const OnDevice<T> from(x, static_cast<std::size_t>(n % 2));
    const OnDevice<U> to(x.size());
    device::cast(dtype_of<T>, from.data(), dtype_of<U>, to.data(), n, stream());
    CHECK(same_bytes(to.read(), want));
  }
}

template <class T>
void check_casts(Random& random) {
  check_cast<T, float>(random);
  check_cast<T, double>(random);
  check_cast<T, bfloat16>(random);
  check_cast<T, half>(random);
  check_cast<T, std::int32_t>(random);
  check_cast<T, std::int64_t>(random);
  check_cast<T, std::uint8_t>(random);
  check_cast<T, std::complex<float>>(random);
  check_cast<T, std::complex<double>>(random);
}

SHARDWISE_DEVICE_TEST("casts from every type to every type give the bits of the host") {
  Random random{21};
  check_casts<float>(random);
  check_casts<double>(random);
  check_casts<bfloat16>(random);
  check_casts<half>(random);
  check_casts<std::int32_t>(random);
  check_casts<std::int64_t>(random);
  check_casts<std::uint8_t>(random);
  check_cast<std::complex<float>, std::complex<double>>(random);
  check_cast<std::complex<double>, std::complex<float>>(random);
}

template <class T>
void check_embedding(Random& random) {
  for (const std::int64_t width : {1, 3, 8, 64}) {
    constexpr std::int64_t vocabulary = 20, first = 5, count = 9, n = 33;
    const auto table = random_values<T>(random, count * width), dy = random_values<T>(random, n * width, -1, 1);
    std::vector<std::int64_t> index(n);
    for (auto& i : index) i = random.below(vocabulary);
    std::vector<T> out(static_cast<std::size_t>(n * width)), dtable(table.size());
    kernels::embedding(table.data(), first, count, vocabulary, width, index.data(), n, out.data());
    kernels::embedding_backward(dy.data(), index.data(), n, first, count, width, dtable.data());
    const OnDevice<T> on_table(table), on_dy(dy), on_out(out.size()), on_dtable(table.size());
    const OnDevice<std::int64_t> on_index(index), invalid(1);
    device::embedding(dtype_of<T>, on_table.data(), first, count, vocabulary, width, on_index.data(), n, on_out.data(),
                      invalid.data(), stream());
    device::embedding_backward(dtype_of<T>, on_dy.data(), on_index.data(), n, first, count, width, on_dtable.data(),
                               stream());
    CHECK(same_bytes(on_out.read(), out));
    CHECK(near(on_dtable.read(), dtable, 8));
    CHECK(invalid.read()[0] == 0);
  }
}

SHARDWISE_DEVICE_TEST("lookups in a part of a table and their gradients equal those of the host") {
  Random random{31};
  check_embedding<float>(random);
  check_embedding<double>(random);
  check_embedding<bfloat16>(random);
  check_embedding<half>(random);
  check_embedding<std::complex<float>>(random);
}

SHARDWISE_DEVICE_TEST("an index outside the table gives zeros and is noted") {
  const OnDevice<float> table(std::vector<float>{1, 2, 3, 4}), out(6);
  const OnDevice<std::int64_t> index(std::vector<std::int64_t>{1, 9, 0}), invalid(1);
  device::embedding(DType::float32, table.data(), 0, 2, 2, 2, index.data(), 3, out.data(), invalid.data(), stream());
  CHECK(out.read() == std::vector<float>{3, 4, 0, 0, 1, 2});
  CHECK(invalid.read()[0] == 2);
}

}  // namespace
