// Index arithmetic of kernels beyond what a test could hold: bodies are called for single indices, on address space of which only the
// pages that are touched exist.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>

#include <shardwise/cuda/bodies/copy.hpp>
#include <shardwise/cuda/bodies/elementwise.hpp>
#include <shardwise/cuda/bodies/sums.hpp>
#include <shardwise/cuda/team.hpp>

#include "support/random.hpp"

namespace {

using namespace shardwise::detail;
using namespace shardwise::detail::device;
using shardwise::ReduceOp;
using test::Random;

// Elements of address space; zero where nobody wrote.
template <class T>
struct Sparse {
  explicit Sparse(std::int64_t n) : bytes(static_cast<std::size_t>(n) * sizeof(T)) {
    void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(p != MAP_FAILED);
    data = static_cast<T*>(p);
  }
  Sparse(const Sparse&) = delete;
  Sparse& operator=(const Sparse&) = delete;
  ~Sparse() { munmap(data, bytes); }
  std::size_t bytes;
  T* data;
};

constexpr std::int64_t far = (std::int64_t{1} << 32) + 12345;

TEST_CASE("a divider divides as the machine does, at both sides of every multiple and up to 2^63") {
  Random random{5};
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const auto check = [](std::int64_t n, std::int64_t d) {
    if (Divider(d).divide(n) != n / d) FAIL(n, " / ", d);
  };
  for (int round = 0; round < 200000; ++round) {
    const std::int64_t d = 1 + (random.below(most) >> random.below(63));
    const std::int64_t q = random.below(most / d) >> random.below(40);
    const std::int64_t n = q * d;
    for (const std::int64_t at : {n - 1, n, n + 1})
      if (at >= 0) check(at, d);
    check(most, d);
    check(0, d);
  }
  for (int bit = 0; bit < 63; ++bit)
    for (const std::int64_t off : {-1, 0, 1}) {
      const std::int64_t d = (std::int64_t{1} << bit) + off;
      if (d < 1) continue;
      for (const std::int64_t n : {d - 1, d, d + 1, most, most - 1, (std::int64_t{1} << 31), far}) check(n, d);
    }
}

TEST_CASE("offsets of an index agree with division by hand, far beyond 2^31") {
  Random random{6};
  for (int round = 0; round < 2000; ++round) {
    TwoStrides<8> strides;
    std::int64_t size[8], total = 1;
    const int rank = static_cast<int>(1 + random.below(8));
    for (int d = 0; d < rank; ++d) {
      size[d] = 1 + random.below(std::int64_t{1} << (48 / rank));
      total *= size[d];
      strides.add(size[d], random.below(1000), random.below(1000));
    }
    REQUIRE(strides.elements() == total);
    for (int sample = 0; sample < 10; ++sample) {
      const std::int64_t index = sample == 0 ? total - 1 : random.below(total);
      Offsets want{0, 0};
      std::int64_t rest = index;
      for (int d = 0; d < rank; ++d) {
        want.a += rest % size[d] * strides.a[d];
        want.b += rest % size[d] * strides.b[d];
        rest /= size[d];
      }
      const Offsets got = strides.at(index);
      REQUIRE(got.a == want.a);
      REQUIRE(got.b == want.b);
    }
  }
}

TEST_CASE("a strided copy of more than 2^32 elements finds its units") {
  const std::int64_t size[] = {3, far, 2}, from[] = {2 * far, 2, 1}, to[] = {2 * far + 6, 2, 1};
  const Sparse<float> src(6 * far), dst(6 * far + 12);
  const CopyPlan plan(3, size, sizeof(float), src.data, from, dst.data, to);
  CHECK(plan.unit == 8);
  CHECK(plan.rank == 2);
  CHECK(plan.units() == 3 * far);
  const StridedCopyBody<8, 2> body(plan, src.data, dst.data);
  Random random{7};
  for (int sample = 0; sample < 100; ++sample) {
    const std::int64_t o = random.below(3), i = sample < 3 ? far - 1 : random.below(far);
    src.data[o * from[0] + 2 * i] = 1 + static_cast<float>(sample);
    src.data[o * from[0] + 2 * i + 1] = -1 - static_cast<float>(sample);
    body(o * far + i);
    CHECK(dst.data[o * to[0] + 2 * i] == 1 + static_cast<float>(sample));
    CHECK(dst.data[o * to[0] + 2 * i + 1] == -1 - static_cast<float>(sample));
  }
}

TEST_CASE("tiles of a transpose of more than 2^32 elements find their places") {
  constexpr std::int64_t rows = 70000, columns = 66000;
  const std::int64_t size[] = {rows, columns}, from[] = {columns, 1}, to[] = {1, rows};
  const Sparse<float> src(rows * columns), dst(rows * columns);
  const CopyPlan plan(2, size, sizeof(float), src.data, from, dst.data, to);
  REQUIRE(plan.transposed() == 1);
  const TransposeBody<4> body(plan, 1, src.data, dst.data);
  constexpr std::int64_t tiles_r = (rows + 31) / 32, tiles_c = (columns + 31) / 32;
  CHECK(body.tiles() == tiles_r * tiles_c);
  alignas(16) std::byte memory[TransposeBody<4>::shared_bytes];
  Random random{8};
  for (int sample = 0; sample < 40; ++sample) {
    const std::int64_t r = sample == 0 ? rows - 1 : random.below(rows),
                       c = sample == 0 ? columns - 1 : random.below(columns);
    src.data[r * columns + c] = 1 + static_cast<float>(sample);
    body(c / 32 * tiles_r + r / 32, LaneTeam{memory, 64});
    CHECK(dst.data[c * rows + r] == 1 + static_cast<float>(sample));
  }
}

TEST_CASE("arithmetic, reductions and fills reach elements beyond 2^32") {
  const Sparse<float> a(far), b(far), out(far);
  for (const std::int64_t at : {std::int64_t{0}, (std::int64_t{1} << 31) + 1, far - 1}) {
    a.data[at] = 3;
    b.data[at] = 4;
    const Extents shape(shardwise::Shape<1>{far});
    const ZipBody<float> sum({a.data, 0}, {b.data, 0}, kernels::BroadcastLoops(shape, shape, shape), out.data,
                             Function::add);
    CHECK(sum.chunks() == (far + 3) / 4);
    sum(at / 4);
    CHECK(out.data[at] == 7);
    const void* const terms[] = {a.data, b.data, a.data};
    const ReduceBody<float> reduce(out.data, terms, 3, far, ReduceOp::product);
    CHECK(reduce.chunks() == (far + 3) / 4);
    reduce(at / 4);
    CHECK(out.data[at] == 36);
    const FillBody<float> fill(out.data, far, 5);
    fill(at / 4);
    CHECK(out.data[at] == 5);
    const CastBody<float> cast(a.data, out.data, shardwise::DType::int32, far);
    cast(at / 4);
    std::int32_t whole = 0;
    std::memcpy(&whole, out.data + at, sizeof whole);
    CHECK(whole == 3);
  }
}

TEST_CASE("a broadcast of more than 2^32 elements finds both operands") {
  constexpr std::int64_t rows = 70000, columns = 66000;
  const Sparse<float> a(rows * columns), b(columns), out(rows * columns);
  const Extents sa(shardwise::Shape<2>{rows, columns}), sb(shardwise::Shape<1>{columns});
  const ZipBody<float> sum({a.data, 0}, {b.data, 0}, kernels::BroadcastLoops(sa, sb, sa), out.data, Function::sub);
  CHECK(sum.width == 4);
  Random random{9};
  for (int sample = 0; sample < 50; ++sample) {
    const std::int64_t r = sample == 0 ? rows - 1 : random.below(rows),
                       c = sample == 0 ? columns - 1 : random.below(columns);
    a.data[r * columns + c] = 10;
    b.data[c] = 3;
    sum((r * columns + c) / 4);
    CHECK(out.data[r * columns + c] == 7);
  }
}

TEST_CASE("sums over rows and columns of more than 2^32 elements find their runs") {
  constexpr std::int64_t n = 70000, inner = 66000, run = 7000;
  const Sparse<float> x(n * inner);
  const Sparse<double> partial(10 * inner);
  using Load = SumLoad<float, double>;
  const SumColumnBody<Load, float, double> columns{
      {x.data, nullptr}, {nullptr, partial.data}, {n, inner, run, Divider(10)}, Divider((inner + 31) / 32)};
  alignas(16) std::byte memory[SumColumnBody<Load, float, double>::shared_bytes];
  for (const std::int64_t c : {std::int64_t{5}, inner - 1}) {
    x.data[(n - 1) * inner + c] = 2;
    x.data[(n - run) * inner + c] = 3;
    columns(9 * ((inner + 31) / 32) + c / 32, LaneTeam{memory, 256});
    CHECK(partial.data[9 * inner + c] == 5);
  }
  const SumRowBody<Load, float, double> rows{
      {x.data, nullptr}, {nullptr, partial.data}, {far, 1, 4096, Divider((far + 4095) / 4096)}};
  const std::int64_t last = far / 4096;
  x.data[far - 1] = 8;
  x.data[far] = 100;  // beyond the row
  rows(last, LaneTeam{memory, 64});
  CHECK(partial.data[last] == 8);
}

}  // namespace
