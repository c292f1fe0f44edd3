// Elementwise kernels, sums and reductions of a device against those of the host.
#include <complex>
#include <limits>

#include <shardwise/comm/reduce.hpp>
#include <shardwise/ops/kernels/binary.hpp>
#include <shardwise/ops/kernels/index.hpp>
#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/kernels/unary.hpp>

#include "cuda/device.hpp"

namespace {

using namespace test;
using kernels::Binary;
using kernels::Unary;
using shardwise::dtype_of;
using shardwise::ReduceOp;

constexpr Unary all_unary[] = {Unary::relu, Unary::gelu, Unary::gelu_tanh, Unary::silu, Unary::sigmoid,
                               Unary::tanh, Unary::exp,  Unary::log,       Unary::sqrt, Unary::neg};
constexpr Binary all_binary[] = {Binary::add, Binary::sub, Binary::mul, Binary::div};

std::size_t count(const Extents& e) { return static_cast<std::size_t>(e.elements()); }

template <class T>
void check_unary(Random& random) {
  for (const Unary f : all_unary)
    for (const std::int64_t n : {0, 1, 7, 16, 333})
      for (const std::size_t shift : {0u, 1u}) {
        INFO("function ", static_cast<int>(f), ", ", n, " elements");
        const auto x = random_values<T>(random, n, 0.1, 2), dy = random_values<T>(random, n);
        std::vector<T> y(x.size()), dx(x.size());
        kernels::unary(f, x.data(), y.data(), n);
        kernels::unary_backward(f, x.data(), y.data(), dy.data(), dx.data(), n);
        const OnDevice<T> on_x(x, shift), on_y(x.size()), on_dy(dy, shift), on_dx(x.size());
        device::unary(dtype_of<T>, f, on_x.data(), on_y.data(), n, stream());
        CHECK(near(on_y.read(), y, 4));
        const bool from_output = kernels::unary_backward_reads_output(f);
        const OnDevice<T> on_output(y);
        device::unary_backward(dtype_of<T>, f, from_output ? nullptr : on_x.data(),
                               from_output ? on_output.data() : nullptr, on_dy.data(), on_dx.data(), n, stream());
        CHECK(near(on_dx.read(), dx, 8));
      }
}

SHARDWISE_DEVICE_TEST("functions of one tensor and their gradients equal those of the host") {
  Random random{41};
  check_unary<float>(random);
  check_unary<double>(random);
  check_unary<bfloat16>(random);
  check_unary<half>(random);
}

SHARDWISE_DEVICE_TEST("NaN passes through relu; negation takes every type") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const OnDevice<float> x(std::vector<float>{nan, -1, 2}), y(3);
  device::unary(dtype_of<float>, Unary::relu, x.data(), y.data(), 3, stream());
  const auto got = y.read();
  CHECK(std::isnan(got[0]));
  CHECK(got[1] == 0);
  CHECK(got[2] == 2);
  const OnDevice<std::int64_t> i(std::vector<std::int64_t>{5, -7}), j(2);
  device::unary(dtype_of<std::int64_t>, Unary::neg, i.data(), j.data(), 2, stream());
  CHECK(j.read() == std::vector<std::int64_t>{-5, 7});
  CHECK_THROWS_AS(device::unary(dtype_of<std::int64_t>, Unary::exp, i.data(), j.data(), 2, stream()), shardwise::Error);
}

Extents extents(std::initializer_list<std::int64_t> sizes) {
  Extents e;
  for (const std::int64_t s : sizes) e[e.rank++] = s;
  return e;
}

// Shapes that broadcast; some with rows of whole chunks, which take another path than the others.
void random_shapes(Random& random, Extents& a, Extents& b) {
  Extents full;
  full.rank = static_cast<int>(random.below(5));
  for (int d = 0; d < full.rank; ++d)
    full[d] = random.below(12) == 0 ? 0 : random.below(3) == 0 ? 16 : 1 + random.below(3);
  const auto operand = [&](int rank) {
    Extents e;
    e.rank = rank;
    for (int d = 0; d < rank; ++d) e[d] = random.below(3) == 0 ? 1 : full[full.rank - rank + d];
    return e;
  };
  const int shorter = static_cast<int>(random.below(full.rank + 1));
  const bool swapped = random.below(2) == 0;
  a = operand(swapped ? shorter : full.rank);
  b = operand(swapped ? full.rank : shorter);
}

template <class T>
void check_binary(Random& random, const Extents& sa, const Extents& sb, std::size_t shift) {
  const Extents sout = kernels::broadcast_extents(sa, sb);
  // For the gradients: away from zero, where quotients are steep.
  const auto a = random_values<T>(random, sa.elements(), 0.5, 2), b = random_values<T>(random, sb.elements(), 0.5, 2);
  const auto dy = random_values<T>(random, sout.elements(), -1, 1);
  const OnDevice<T> on_a(a, shift), on_b(b), on_dy(dy);
  for (const Binary op : all_binary) {
    if (op == Binary::div && std::is_integral_v<T>) continue;
    INFO("operation ", static_cast<int>(op), " of ", to_string(sa), " and ", to_string(sb));
    std::vector<T> out(count(sout)), da(count(sa)), db(count(sb));
    kernels::binary(op, sa, a.data(), sb, b.data(), sout, out.data());
    const OnDevice<T> on_out(out.size()), on_da(da.size()), on_db(db.size());
    device::binary(dtype_of<T>, op, sa, on_a.data(), sb, on_b.data(), sout, on_out.data(), stream());
    CHECK(near(on_out.read(), out, 4));
    if constexpr (shardwise::FieldElement<T>) {
      kernels::binary_backward(op, sa, a.data(), sb, b.data(), sout, dy.data(), da.data(), db.data());
      device::binary_backward(dtype_of<T>, op, sa, on_a.data(), sb, on_b.data(), sout, on_dy.data(), on_da.data(),
                              on_db.data(), stream());
      CHECK(near(on_da.read(), da, 64));
      CHECK(near(on_db.read(), db, 64));
    }
  }
}

template <class T>
void check_binaries(std::uint64_t seed) {
  Random random{seed};
  for (int round = 0; round < 40; ++round) {
    Extents a, b;
    random_shapes(random, a, b);
    check_binary<T>(random, a, b, static_cast<std::size_t>(random.below(2)));
  }
  check_binary<T>(random, extents({64}), extents({64}), 0);
  check_binary<T>(random, extents({5, 64}), extents({64}), 0);
  check_binary<T>(random, extents({5, 1}), extents({5, 64}), 0);
}

SHARDWISE_DEVICE_TEST("arithmetic with broadcasting and its gradients equal those of the host") {
  check_binaries<float>(51);
  check_binaries<double>(52);
  check_binaries<bfloat16>(53);
  check_binaries<half>(54);
  check_binaries<std::complex<float>>(55);
  check_binaries<std::complex<double>>(56);
  check_binaries<std::int32_t>(57);
  check_binaries<std::uint8_t>(58);
}

template <class T>
void check_scalars(Random& random) {
  for (const std::int64_t n : {1, 16, 77}) {
    const auto a = random_values<T>(random, n, 0.5, 2);
    const T s = random_values<T>(random, 1, 0.5, 2)[0];
    const OnDevice<T> on_a(a), out(a.size());
    for (const Binary op : all_binary) {
      std::vector<T> want(a.size());
      kernels::binary_scalar(op, a.data(), s, want.data(), n);
      device::binary_scalar(dtype_of<T>, op, on_a.data(), &s, false, out.data(), n, stream());
      CHECK(near(out.read(), want, 4));
      kernels::binary_scalar_reversed(op, s, a.data(), want.data(), n);
      device::binary_scalar(dtype_of<T>, op, on_a.data(), &s, true, out.data(), n, stream());
      CHECK(near(out.read(), want, 4));
    }
    std::vector<T> want(a.size());
    kernels::scale(a.data(), Accumulator<T>(0.3), want.data(), n);
    device::scale(dtype_of<T>, on_a.data(), 0.3, out.data(), n, stream());
    CHECK(near(out.read(), want, 1));
    kernels::add_to(want.data(), a.data(), n);
    device::add_to(dtype_of<T>, out.data(), on_a.data(), n, stream());
    CHECK(near(out.read(), want, 1));
  }
}

SHARDWISE_DEVICE_TEST("arithmetic with a number equals that of the host") {
  Random random{61};
  check_scalars<float>(random);
  check_scalars<double>(random);
  check_scalars<bfloat16>(random);
  check_scalars<half>(random);
  const OnDevice<std::int32_t> x(1), y(1);
  const std::int32_t two = 2;
  CHECK_THROWS_AS(
      device::binary_scalar(dtype_of<std::int32_t>, Binary::div, x.data(), &two, false, y.data(), 1, stream()),
      shardwise::Error);
}

template <class T>
void check_reduce(Random& random) {
  for (const int terms : {1, 2, 3, 8, 64})
    for (const std::int64_t n : {1, 16, 130})
      for (int op = 0; op < 5; ++op) {
        if (!shardwise::reducible<T>(static_cast<ReduceOp>(op))) continue;
        const std::size_t shift = static_cast<std::size_t>(random.below(2));
        std::vector<std::vector<T>> values;
        std::vector<OnDevice<T>> held;
        const T* on_host[64];
        const void* on_device[64];
        for (int t = 0; t < terms; ++t) {
          values.push_back(random_values<T>(random, n, -1, 1));
          held.emplace_back(values.back(), t == 1 ? shift : 0);
        }
        for (int t = 0; t < terms; ++t) {
          on_host[t] = values[static_cast<std::size_t>(t)].data();
          on_device[t] = held[static_cast<std::size_t>(t)].data();
        }
        std::vector<T> want(static_cast<std::size_t>(n));
        shardwise::reduce_terms(want.data(), on_host, terms, n, static_cast<ReduceOp>(op));
        const OnDevice<T> out(want.size());
        device::reduce_terms(dtype_of<T>, out.data(), on_device, terms, n, static_cast<ReduceOp>(op), stream());
        const std::vector<T> got = out.read();
        INFO("operation ", op, " of ", terms, " terms");
        CHECK(std::memcmp(got.data(), want.data(), want.size() * sizeof(T)) == 0);
      }
}

SHARDWISE_DEVICE_TEST("reductions of several buffers give the bits of the host, in every type and operation") {
  Random random{71};
  check_reduce<float>(random);
  check_reduce<double>(random);
  check_reduce<bfloat16>(random);
  check_reduce<half>(random);
  check_reduce<std::int32_t>(random);
  check_reduce<std::int64_t>(random);
  check_reduce<std::uint8_t>(random);
  check_reduce<std::complex<float>>(random);
  check_reduce<std::complex<double>>(random);
  const OnDevice<float> x(1);
  const void* none[65] = {x.data()};
  CHECK_THROWS_WITH_AS(device::reduce_terms(dtype_of<float>, x.data(), none, 65, 1, ReduceOp::sum, stream()),
                       "shardwise::reduce_terms: 65 terms; 1 to 64 meet in one call on a device", shardwise::Error);
}

template <class T>
void check_sums(Random& random) {
  struct Case {
    std::int64_t outer, n, inner;
  };
  for (const auto [outer, n, inner] : {Case{1, 1, 1},
                                       {1, 20000, 1},
                                       {3, 257, 1},
                                       {2, 0, 3},
                                       {1, 5000, 3},
                                       {1, 300, 33},
                                       {4, 9, 40},
                                       {2, 0, 1},
                                       {0, 4, 4},
                                       {5, 8, 1}}) {
    INFO(outer, " x ", n, " x ", inner);
    const auto x = random_values<T>(random, outer * n * inner, -1, 1);
    std::vector<T> want(static_cast<std::size_t>(outer * inner));
    kernels::sum_dim(x.data(), want.data(), outer, n, inner);
    const OnDevice<T> on_x(x), y(want.size());
    device::sum_dim(dtype_of<T>, on_x.data(), y.data(), outer, n, inner, stream());
    CHECK(near(y.read(), want, shardwise::is_complex<T> ? 256 : 2));  // complex sums are kept in their own type
    if constexpr (shardwise::FieldElement<T>) {
      std::vector<T> spread(x.size());
      kernels::spread_dim(want.data(), spread.data(), outer, n, inner, Accumulator<T>(0.25));
      const OnDevice<T> on_want(want), on_spread(x.size());
      device::spread_dim(dtype_of<T>, on_want.data(), on_spread.data(), outer, n, inner, 0.25, stream());
      CHECK(near(on_spread.read(), spread, 0));
    }
  }
}

SHARDWISE_DEVICE_TEST("sums over a dimension and their gradients equal those of the host") {
  Random random{81};
  check_sums<float>(random);
  check_sums<double>(random);
  check_sums<bfloat16>(random);
  check_sums<half>(random);
  check_sums<std::int32_t>(random);
  check_sums<std::int64_t>(random);
  check_sums<std::uint8_t>(random);
  check_sums<std::complex<float>>(random);
}

SHARDWISE_DEVICE_TEST("dropout and its gradient equal those of the host") {
  Random random{91};
  constexpr std::int64_t n = 100;
  const auto x = random_values<half>(random, n);
  const auto uniform = random_values<float>(random, n, 0, 1);
  std::vector<half> y(n), dx(n);
  std::vector<std::uint8_t> mask(n);
  kernels::dropout(x.data(), uniform.data(), 0.4, y.data(), mask.data(), n);
  kernels::dropout_backward(x.data(), mask.data(), 0.4, dx.data(), n);
  const OnDevice<half> on_x(x), on_y(n), on_dx(n);
  const OnDevice<float> on_uniform(uniform);
  const OnDevice<std::uint8_t> on_mask(n);
  device::dropout(dtype_of<half>, on_x.data(), on_uniform.data(), 0.4, on_y.data(), on_mask.data(), n, stream());
  device::dropout_backward(dtype_of<half>, on_x.data(), on_mask.data(), 0.4, on_dx.data(), n, stream());
  CHECK(near(on_y.read(), y, 0));
  CHECK(on_mask.read() == mask);
  CHECK(near(on_dx.read(), dx, 0));
}

SHARDWISE_DEVICE_TEST("work goes to the device of its stream, whichever is current") {
  if (shardwise::cuda::device_count() < 2) {
    std::printf("SKIPPED: one CUDA device: work goes to the device of its stream\n");
    return;
  }
  const shardwise::cuda::Stream second(1);
  const Buffer x = device_buffer(4 * sizeof(float), second), y = device_buffer(4 * sizeof(float), second);
  const float three = 3;
  const Extents none = extents({0, 4}), one = extents({4});
  device::fill(dtype_of<float>, x.data(), &three, 4, second);
  device::scale(dtype_of<float>, x.data(), 2, x.data(), 4, second);
  device::reduce_to(dtype_of<float>, none, nullptr, one, y.data(), second);  // zeros
  device::add_to(dtype_of<float>, y.data(), x.data(), 4, second);
  float got[4] = {};
  copy_to_host(Buffer::view(got), y, sizeof got, second);
  for (const float g : got) CHECK(g == 6);
  CHECK(shardwise::cuda::current_device() == 0);
}

}  // namespace
