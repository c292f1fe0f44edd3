// Elementwise kernels and sums against loops over indices, and every gradient against central differences.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include <shardwise/ops/kernels/binary.hpp>
#include <shardwise/ops/kernels/cross_entropy.hpp>
#include <shardwise/ops/kernels/index.hpp>
#include <shardwise/ops/kernels/norm.hpp>
#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/kernels/softmax.hpp>
#include <shardwise/ops/kernels/unary.hpp>

namespace {

using namespace shardwise::detail::kernels;
using shardwise::detail::Extents;
using Values = std::vector<double>;

struct Random {
  std::uint64_t state = 2024;
  std::uint64_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
  }
  int below(int n) { return static_cast<int>(bits() % static_cast<std::uint64_t>(n)); }
  double uniform() { return static_cast<double>(bits()) / 2147483648.0; }
  Values values(std::int64_t n, double low, double high) {
    Values v(static_cast<std::size_t>(n));
    for (double& x : v) x = low + (high - low) * uniform();
    return v;
  }
};

std::int64_t length(const Values& v) { return static_cast<std::int64_t>(v.size()); }

Extents extents(std::initializer_list<std::int64_t> sizes) {
  Extents e;
  for (const std::int64_t s : sizes) e[e.rank++] = s;
  return e;
}

// The offset in a tensor of `shape` of the element that the linear index `i` over `out` reads by broadcasting.
std::size_t broadcast_offset(const Extents& shape, const Extents& out, std::int64_t i) {
  std::int64_t offset = 0, step = 1;
  for (int d = 1; d <= out.rank; ++d) {
    const std::int64_t at = i % out[out.rank - d];
    i /= out[out.rank - d];
    if (d > shape.rank) continue;
    if (shape[shape.rank - d] != 1) offset += at * step;
    step *= shape[shape.rank - d];
  }
  return static_cast<std::size_t>(offset);
}

double apply(Binary op, double x, double y) {
  switch (op) {
    case Binary::add: return x + y;
    case Binary::sub: return x - y;
    case Binary::mul: return x * y;
    case Binary::div: break;
  }
  return x / y;
}
constexpr Binary all_binary[] = {Binary::add, Binary::sub, Binary::mul, Binary::div};

// Random operand shapes that broadcast, sizes 0 to 3, ranks 0 to 4.
void random_shapes(Random& random, Extents& a, Extents& b) {
  Extents full;
  full.rank = random.below(5);
  for (int d = 0; d < full.rank; ++d) full[d] = random.below(8) == 0 ? 0 : 1 + random.below(3);
  const auto operand = [&](int rank) {
    Extents e;
    e.rank = rank;
    for (int d = 0; d < rank; ++d) e[d] = random.below(3) == 0 ? 1 : full[full.rank - rank + d];
    return e;
  };
  const int shorter = random.below(full.rank + 1);
  const bool swapped = random.below(2) == 0;
  a = operand(swapped ? shorter : full.rank);
  b = operand(swapped ? full.rank : shorter);
}

void check_near(const Values& got, const Values& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("element ", i, ": ", got[i], " for ", want[i]);
    CHECK(std::abs(got[i] - want[i]) <= tolerance * std::max(1.0, std::abs(want[i])));
  }
}

// d sum(f(x) dy) / dx by central differences; f writes its output into a vector.
template <class F>
Values differences(Values x, const Values& dy, F f) {
  Values gradient(x.size());
  const double h = 1e-6;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + h;
    const Values up = f(x);
    x[i] = at - h;
    const Values down = f(x);
    x[i] = at;
    for (std::size_t j = 0; j < dy.size(); ++j) gradient[i] += dy[j] * (up[j] - down[j]) / (2 * h);
  }
  return gradient;
}

TEST_CASE("broadcasting equals a loop over indices, on random shapes") {
  Random random;
  for (int round = 0; round < 400; ++round) {
    Extents a, b;
    random_shapes(random, a, b);
    const Extents out = broadcast_extents(a, b);
    const Values x = random.values(a.elements(), 0.5, 2), y = random.values(b.elements(), 0.5, 2);
    INFO(to_string(a), " with ", to_string(b));
    for (const Binary op : all_binary) {
      Values got(static_cast<std::size_t>(out.elements()), -1), want = got;
      binary(op, a, x.data(), b, y.data(), out, got.data());
      for (std::int64_t i = 0; i < out.elements(); ++i)
        want[static_cast<std::size_t>(i)] = apply(op, x[broadcast_offset(a, out, i)], y[broadcast_offset(b, out, i)]);
      CHECK(got == want);
    }
    const Values g = random.values(out.elements(), -1, 1);
    Values got(x.size(), -1), want(x.size(), 0);
    reduce_to(out, g.data(), a, got.data());
    for (std::int64_t i = 0; i < out.elements(); ++i)
      want[broadcast_offset(a, out, i)] += g[static_cast<std::size_t>(i)];
    check_near(got, want, 1e-14);
  }
}

TEST_CASE("the gradients of broadcast arithmetic are those of central differences") {
  Random random;
  for (int round = 0; round < 40; ++round) {
    Extents a, b;
    random_shapes(random, a, b);
    const Extents out = broadcast_extents(a, b);
    const Values x = random.values(a.elements(), 0.5, 2), y = random.values(b.elements(), 0.5, 2);
    const Values dy = random.values(out.elements(), -1, 1);
    INFO(to_string(a), " with ", to_string(b));
    for (const Binary op : all_binary) {
      Values da(x.size(), 7), db(y.size(), 7);
      binary_backward(op, a, x.data(), b, y.data(), out, dy.data(), da.data(), db.data());
      const auto run = [&](const Values& p, const Values& q) {
        Values z(dy.size());
        binary(op, a, p.data(), b, q.data(), out, z.data());
        return z;
      };
      check_near(da, differences(x, dy, [&](const Values& p) { return run(p, y); }), 1e-7);
      check_near(db, differences(y, dy, [&](const Values& q) { return run(x, q); }), 1e-7);
    }
  }
}

TEST_CASE("shapes that do not broadcast are named") {
  CHECK_THROWS_WITH_AS(broadcast_extents(extents({2, 3}), extents({4})),
                       "shapes [2, 3] and [4] do not broadcast: sizes 3 and 4 meet in dimension -1",
                       shardwise::ShapeError);
}

TEST_CASE("arithmetic with a scalar works from both sides, also in place") {
  for (std::int64_t n = 0; n < 40; ++n) {
    Random random;
    const Values x = random.values(n, 1, 2);
    for (const Binary op : all_binary) {
      Values right = x, left = x;
      binary_scalar(op, right.data(), 3.0, right.data(), n);
      binary_scalar_reversed(op, 3.0, left.data(), left.data(), n);
      for (std::size_t i = 0; i < x.size(); ++i) {
        CHECK(right[i] == apply(op, x[i], 3));
        CHECK(left[i] == apply(op, 3, x[i]));
      }
    }
  }
}

TEST_CASE("arithmetic works for the other element types") {
  const Extents shape = extents({2});
  const std::int32_t i[] = {7, -9};
  std::int32_t i_out[2];
  binary(Binary::div, shape, i, shape, i, shape, i_out);
  CHECK((i_out[0] == 1 && i_out[1] == 1));
  const std::complex<double> z[] = {{1, 2}, {3, -1}}, dz[] = {{1, 1}, {1, 0}};
  std::complex<double> z_out[2], da[2], db[2];
  binary(Binary::mul, shape, z, shape, z, shape, z_out);
  CHECK(z_out[0] == std::complex<double>(-3, 4));
  binary_backward(Binary::mul, shape, z, shape, z, shape, dz, da, db);
  CHECK(da[0] == std::complex<double>(3, -1));  // dz conj(z)
  const shardwise::half h[] = {shardwise::half(1.5f), shardwise::half(2.0f)};
  shardwise::half h_out[2];
  binary(Binary::add, shape, h, shape, h, shape, h_out);
  CHECK(static_cast<float>(h_out[0]) == 3.0f);
}

TEST_CASE("the derivatives of all functions are those of central differences, at every length") {
  Random random;
  const Unary all[] = {Unary::relu, Unary::gelu, Unary::gelu_tanh, Unary::silu, Unary::sigmoid,
                       Unary::tanh, Unary::exp,  Unary::log,       Unary::sqrt, Unary::neg};
  for (const Unary f : all) {
    const bool positive = f == Unary::log || f == Unary::sqrt;
    for (const std::int64_t n : {0, 1, 7, 16, 37}) {
      INFO("function ", static_cast<int>(f), ", ", n, " elements");
      const Values x = random.values(n, positive ? 0.3 : -3, 3), dy = random.values(n, -1, 1);
      const auto run = [&](const Values& p) {
        Values z(p.size());
        unary(f, p.data(), z.data(), length(p));
        return z;
      };
      const Values y = run(x);
      Values dx(x.size());
      const bool from_output = unary_backward_reads_output(f);
      unary_backward(f, from_output ? nullptr : x.data(), from_output ? y.data() : nullptr, dy.data(), dx.data(), n);
      check_near(dx, differences(x, dy, run), 1e-7);
    }
  }
}

TEST_CASE("functions of extreme arguments") {
  const double inf = std::numeric_limits<double>::infinity();
  const Values x = {std::nan(""), inf, -inf, -1000, 1000};
  Values y(5);
  unary(Unary::relu, x.data(), y.data(), 5);
  CHECK(std::isnan(y[0]));
  CHECK(y[1] == inf);
  CHECK(y[2] == 0);
  unary(Unary::sigmoid, x.data(), y.data(), 5);
  CHECK((y[1] == 1 && y[2] == 0 && y[3] == 0 && y[4] == 1));
  unary(Unary::gelu_tanh, x.data(), y.data(), 5);
  CHECK((y[3] == 0 && y[4] == 1000));
}

TEST_CASE("sums over everything are accurate and over one dimension equal a loop") {
  std::vector<float> tenth(1 << 20, 0.1f);
  CHECK(sum_all(tenth.data(), 1 << 20) == doctest::Approx(static_cast<double>(0.1f) * (1 << 20)).epsilon(1e-7));
  const std::vector<shardwise::bfloat16> ones(5000, shardwise::bfloat16(1.0f));
  CHECK(static_cast<float>(sum_all(ones.data(), 5000)) == 4992.0f);  // 5000 rounded to 8 bits
  const std::vector<std::uint8_t> bytes(3, 100);
  CHECK(sum_all(bytes.data(), 3) == 44);
  CHECK(sum_all(tenth.data(), 0) == 0);
  Random random;
  for (std::int64_t outer : {0, 1, 3})
    for (std::int64_t n : {0, 1, 5, 300})
      for (std::int64_t inner : {0, 1, 2, 300}) {
        const Values x = random.values(outer * n * inner, -1, 1);
        Values got(static_cast<std::size_t>(outer * inner), 9), want(got.size(), 0), back(x.size());
        sum_dim(x.data(), got.data(), outer, n, inner);
        for (std::int64_t i = 0; i < length(x); ++i)
          want[static_cast<std::size_t>(i / (n * inner) * inner + i % inner)] += x[static_cast<std::size_t>(i)];
        check_near(got, want, 1e-13);
        spread_dim(got.data(), back.data(), outer, n, inner, 0.5);
        bool same = true;
        for (std::int64_t i = 0; i < length(x); ++i)
          same = same && back[static_cast<std::size_t>(i)] ==
                             0.5 * got[static_cast<std::size_t>(i / (n * inner) * inner + i % inner)];
        CHECK(same);
      }
}

TEST_CASE("softmax of rows with -inf, of empty dimensions and of 16-bit numbers") {
  const double inf = std::numeric_limits<double>::infinity();
  Values x = {-inf, 0, 0, -inf, -inf, -inf}, y(6);
  softmax(x.data(), y.data(), 2, 3, 1);
  CHECK((y[0] == 0 && y[1] == 0.5 && y[2] == 0.5 && std::isnan(y[3])));
  log_softmax(x.data(), y.data(), 2, 3, 1);
  CHECK((y[0] == -inf && y[1] == doctest::Approx(-std::log(2.0)) && std::isnan(y[3])));
  softmax(x.data(), y.data(), 3, 0, 2);
  softmax(x.data(), y.data(), 0, 3, 2);
  const shardwise::half h[] = {shardwise::half(1.0f), shardwise::half(1.0f)};
  shardwise::half out[2];
  softmax(h, out, 1, 2, 1);
  CHECK(static_cast<float>(out[1]) == 0.5f);
}

TEST_CASE("gradients of softmax, norms and cross entropy are those of central differences") {
  Random random;
  const std::int64_t outer = 2, n = 5, inner = 3;
  const Values x = random.values(outer * n * inner, -2, 2), dy = random.values(outer * n * inner, -1, 1);
  Values dx(x.size());
  for (const bool logarithm : {false, true}) {
    const auto run = [&](const Values& p) {
      Values y(p.size());
      (logarithm ? log_softmax<double> : softmax<double>)(p.data(), y.data(), outer, n, inner);
      return y;
    };
    (logarithm ? log_softmax_backward<double> : softmax_backward<double>)(run(x).data(), dy.data(), dx.data(), outer, n,
                                                                          inner);
    check_near(dx, differences(x, dy, run), 1e-7);
  }
  const std::int64_t rows = 3, width = 10;
  const Values w = random.values(width, 0.5, 2), b = random.values(width, -1, 1);
  for (const bool centered : {true, false}) {
    Values mean(3), rstd(3), dw(10), db(10);
    const auto run = [&](const Values& p, const Values& weight, const Values& bias) {
      Values y(p.size());
      if (centered)
        layer_norm(p.data(), weight.data(), bias.data(), 1e-5, rows, width, y.data(), mean.data(), rstd.data());
      else
        rms_norm(p.data(), weight.data(), 1e-5, rows, width, y.data(), rstd.data());
      return y;
    };
    run(x, w, b);
    if (centered)
      layer_norm_backward(x.data(), w.data(), dy.data(), mean.data(), rstd.data(), rows, width, dx.data(), dw.data(),
                          db.data());
    else
      rms_norm_backward(x.data(), w.data(), dy.data(), rstd.data(), rows, width, dx.data(), dw.data());
    check_near(dx, differences(x, dy, [&](const Values& p) { return run(p, w, b); }), 1e-7);
    check_near(dw, differences(w, dy, [&](const Values& p) { return run(x, p, b); }), 1e-7);
    if (centered) check_near(db, differences(b, dy, [&](const Values& p) { return run(x, w, p); }), 1e-7);
  }
  const std::vector<std::int64_t> target = {4, -100, 0, 2, 2, 1};
  const Values weight = random.values(n, 0.5, 2), row_gradient = random.values(6, -1, 1);
  CrossEntropyArguments<double> in{outer, n, inner, x.data(), target.data(), weight.data(), -100, 0.1};
  const auto run = [&](const Values& p) {
    CrossEntropyArguments<double> at = in;
    at.logits = p.data();
    Values loss(6);
    cross_entropy<double>(at, loss.data(), nullptr);
    return loss;
  };
  Values saved(12);
  cross_entropy<double>(in, nullptr, saved.data());
  cross_entropy_backward(in, saved.data(), row_gradient.data(), 1.0, dx.data());
  check_near(dx, differences(x, row_gradient, run), 1e-7);
}

TEST_CASE("a target or an index that does not exist is named before anything is written") {
  const Values logits(6, 0.0);
  const std::vector<std::int64_t> target = {1, 3};
  Values loss = {9, 9};
  CrossEntropyArguments<double> in{2, 3, 1, logits.data(), target.data()};
  CHECK_THROWS_WITH_AS(cross_entropy<double>(in, loss.data(), nullptr),
                       "shardwise::cross_entropy: target 3 in row 1 is not one of 3 classes, nor ignore_index -100",
                       shardwise::Error);
  CHECK(loss[0] == 9);
  const std::vector<std::int64_t> index = {0, -1};
  Values out = {9, 9};
  CHECK_THROWS_WITH_AS(embedding(logits.data(), 0, 6, 6, 1, index.data(), 2, out.data()),
                       "shardwise::embedding: index -1 at position 1 is outside the table of 6 rows", shardwise::Error);
  CHECK(out[0] == 9);
}

TEST_CASE("dropout keeps, scales and remembers") {
  const std::vector<float> uniform = {0.0f, 0.25f, 0.2f, 0.9f};
  const Values x = {1, 2, 3, 4};
  Values y(4), dx(4);
  std::uint8_t mask[4];
  dropout(x.data(), uniform.data(), 0.25, y.data(), mask, 4);
  CHECK(y == Values{0, 2 / 0.75, 0, 4 / 0.75});
  dropout_backward(x.data(), mask, 0.25, dx.data(), 4);
  CHECK(dx == y);
  dropout(x.data(), uniform.data(), 1, y.data(), mask, 4);
  CHECK(y == Values(4, 0.0));
  dropout(x.data(), uniform.data(), 0, y.data(), mask, 4);
  CHECK(y == x);
}

}  // namespace
