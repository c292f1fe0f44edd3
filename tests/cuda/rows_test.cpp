// Softmax, norms, cross entropy and random numbers of a device against those of the host.
#include <limits>

#include <shardwise/base/philox.hpp>
#include <shardwise/ops/kernels/cross_entropy.hpp>
#include <shardwise/ops/kernels/norm.hpp>
#include <shardwise/ops/kernels/softmax.hpp>

#include "cuda/device.hpp"

namespace {

using namespace test;
using shardwise::dtype_of;

// Rows of one warp, of a block, of one thread; rows that lie across.
struct Case {
  std::int64_t outer, n, inner;
};
constexpr Case cases[] = {{3, 1, 1},    {2, 5, 1}, {4, 33, 1}, {2, 256, 1},
                          {2, 1000, 1}, {2, 7, 5}, {1, 40, 3}, {0, 4, 1}};

template <class T>
void check_softmax(Random& random) {
  for (const auto [outer, n, inner] : cases)
    for (const bool log : {false, true}) {
      INFO(outer, " x ", n, " x ", inner);
      const auto x = random_values<T>(random, outer * n * inner, -5, 5),
                 dy = random_values<T>(random, outer * n * inner);
      std::vector<T> y(x.size()), dx(x.size());
      log ? kernels::log_softmax(x.data(), y.data(), outer, n, inner)
          : kernels::softmax(x.data(), y.data(), outer, n, inner);
      log ? kernels::log_softmax_backward(y.data(), dy.data(), dx.data(), outer, n, inner)
          : kernels::softmax_backward(y.data(), dy.data(), dx.data(), outer, n, inner);
      const OnDevice<T> on_x(x), on_y(y), on_dy(dy);
      device::softmax_backward(dtype_of<T>, log, on_y.data(), on_dy.data(), on_dy.data(), outer, n, inner, stream());
      device::softmax(dtype_of<T>, log, on_x.data(), on_x.data(), outer, n, inner, stream());
      CHECK(near(on_x.read(), y, 32));
      CHECK(near(on_dy.read(), dx, 512));
    }
}

SHARDWISE_DEVICE_TEST("softmax, log_softmax and their gradients equal those of the host") {
  Random random{101};
  check_softmax<float>(random);
  check_softmax<double>(random);
  check_softmax<bfloat16>(random);
  check_softmax<half>(random);
}

SHARDWISE_DEVICE_TEST("a row of minus infinity alone gives NaN, one infinity among numbers does not") {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x(40, -inf);
  for (std::size_t i = 20; i < 39; ++i) x[i] = 1;
  const OnDevice<float> on_x(x);
  device::softmax(dtype_of<float>, false, on_x.data(), on_x.data(), 2, 20, 1, stream());
  const auto y = on_x.read();
  for (std::size_t i = 0; i < 20; ++i) CHECK(std::isnan(y[i]));
  CHECK(y[39] == 0);
  CHECK(std::abs(y[20] - 1.0f / 19) < 1e-6f);
}

template <class T>
void check_norms(Random& random) {
  using A = Accumulator<T>;
  for (const auto [rows, width, unused] : cases)
    for (const bool rms : {false, true})
      for (const bool weighted : {false, true}) {
        if (width == 1 && !rms) continue;  // no variance: only eps is left, and the rounding of x - mean
        INFO(rows, " rows of ", width, rms ? ", RMS" : "");
        const auto x = random_values<T>(random, rows * width), dy = random_values<T>(random, rows * width, -1, 1);
        const auto weight = random_values<T>(random, width, 0.5, 1.5), bias = random_values<T>(random, width);
        const T* const w = weighted ? weight.data() : nullptr;
        const T* const b = weighted && !rms ? bias.data() : nullptr;
        std::vector<T> y(x.size()), dx(x.size()), dw(weight.size()), db(bias.size());
        std::vector<A> mean(static_cast<std::size_t>(rows)), rstd(mean.size());
        if (rms) {
          kernels::rms_norm(x.data(), w, 1e-5, rows, width, y.data(), rstd.data());
          kernels::rms_norm_backward(x.data(), w, dy.data(), rstd.data(), rows, width, dx.data(), dw.data());
        } else {
          kernels::layer_norm(x.data(), w, b, 1e-5, rows, width, y.data(), mean.data(), rstd.data());
          kernels::layer_norm_backward(x.data(), w, dy.data(), mean.data(), rstd.data(), rows, width, dx.data(),
                                       dw.data(), db.data());
        }
        const OnDevice<T> on_x(x), on_dy(dy), on_weight(weight), on_bias(bias), on_y(x.size()), on_dx(x.size()),
            on_dw(weight.size()), on_db(bias.size());
        const OnDevice<A> on_mean(mean.size()), on_rstd(rstd.size());
        A* const m = rms ? nullptr : on_mean.data();
        device::norm(dtype_of<T>, on_x.data(), weighted ? on_weight.data() : nullptr,
                     weighted && !rms ? on_bias.data() : nullptr, 1e-5, rows, width, on_y.data(), m, on_rstd.data(),
                     stream());
        device::norm_backward(dtype_of<T>, on_x.data(), weighted ? on_weight.data() : nullptr, on_dy.data(), m,
                              on_rstd.data(), rows, width, on_dx.data(), on_dw.data(), rms ? nullptr : on_db.data(),
                              stream());
        CHECK(near(on_y.read(), y, 64));
        CHECK(near(on_rstd.read(), rstd, 64));
        CHECK(near(on_dx.read(), dx, 256));
        CHECK(near(on_dw.read(), dw, 256));
        if (!rms) {
          CHECK(near(on_mean.read(), mean, 64));
          CHECK(near(on_db.read(), db, 16));
        }
      }
}

SHARDWISE_DEVICE_TEST("layer and RMS norms and their gradients equal those of the host") {
  Random random{111};
  check_norms<float>(random);
  check_norms<double>(random);
  check_norms<bfloat16>(random);
  check_norms<half>(random);
}

template <class T>
void check_cross_entropy(Random& random) {
  using A = Accumulator<T>;
  for (const auto [outer, classes, inner] : cases)
    for (const bool weighted : {false, true})
      for (const double smoothing : {0.0, 0.1}) {
        INFO(outer, " x ", classes, " x ", inner, ", smoothing ", smoothing);
        const std::int64_t rows = outer * inner;
        const auto logits = random_values<T>(random, rows * classes, -5, 5),
                   weight = random_values<T>(random, classes, 0.5, 1.5);
        const auto row_scale = random_values<T>(random, rows);
        std::vector<std::int64_t> target(static_cast<std::size_t>(rows));
        for (auto& y : target) y = random.below(6) == 0 ? -100 : random.below(classes);
        const kernels::CrossEntropyArguments<T> in{
            outer, classes, inner, logits.data(), target.data(), weighted ? weight.data() : nullptr, -100, smoothing};
        std::vector<T> loss(target.size()), dlogits(logits.size());
        std::vector<A> saved(2 * target.size());
        const auto sums = kernels::cross_entropy(in, loss.data(), saved.data());
        kernels::cross_entropy_backward(in, saved.data(), row_scale.data(), A(0.7), dlogits.data());

        const OnDevice<T> on_logits(logits), on_weight(weight), on_scale(row_scale), on_loss(loss.size()),
            on_dlogits(dlogits.size());
        const OnDevice<std::int64_t> on_target(target), invalid(1);
        const OnDevice<A> on_saved(saved.size()), scale(std::vector<A>{A(0.7)});
        const OnDevice<double> on_sums(2);
        const device::CrossEntropy on{
            outer, classes,  inner, on_logits.data(), on_target.data(), weighted ? on_weight.data() : nullptr,
            -100,  smoothing};
        device::cross_entropy(dtype_of<T>, on, on_loss.data(), on_saved.data(), on_sums.data(), invalid.data(),
                              stream());
        device::cross_entropy_backward(dtype_of<T>, on, on_saved.data(), on_scale.data(), scale.data(),
                                       on_dlogits.data(), stream());
        CHECK(near(on_loss.read(), loss, 64));
        CHECK(near(on_saved.read(), saved, 64));
        CHECK(near(on_dlogits.read(), dlogits, 64));
        CHECK(invalid.read()[0] == 0);
        const auto got = on_sums.read();
        CHECK(std::abs(got[0] - sums.loss) <= 1e-4 * std::max(1.0, std::abs(sums.loss)));
        CHECK(std::abs(got[1] - sums.weight) <= 1e-9 * std::max(1.0, sums.weight));
      }
}

SHARDWISE_DEVICE_TEST("cross entropy and its gradient equal those of the host") {
  Random random{121};
  check_cross_entropy<float>(random);
  check_cross_entropy<double>(random);
  check_cross_entropy<bfloat16>(random);
  check_cross_entropy<half>(random);
}

SHARDWISE_DEVICE_TEST("a target that is no class gives NaN and is noted") {
  const OnDevice<float> logits(std::vector<float>(30, 1.0f)), loss(3);
  const OnDevice<std::int64_t> target(std::vector<std::int64_t>{2, 10, -100}), invalid(1);
  const device::CrossEntropy in{3, 10, 1, logits.data(), target.data()};
  device::cross_entropy(dtype_of<float>, in, loss.data(), nullptr, nullptr, invalid.data(), stream());
  const auto got = loss.read();
  CHECK(std::abs(got[0] - std::log(10.0f)) < 1e-5f);
  CHECK(std::isnan(got[1]));
  CHECK(got[2] == 0);
  CHECK(invalid.read()[0] == 2);
}

template <class T>
void check_random() {
  for (const std::int64_t first : {std::int64_t{0}, std::int64_t{3}, (std::int64_t{1} << 33) + 1})
    for (const std::int64_t n : {0, 1, 2, 5, 400}) {
      std::vector<T> want(static_cast<std::size_t>(n));
      const OnDevice<T> out(want.size());
      shardwise::fill_uniform<T>(want.data(), 7, 9, first, n, T(-1.5f), T(0.7f));
      device::fill_uniform(dtype_of<T>, out.data(), 7, 9, {first, n}, -1.5, 0.7f, stream());
      CHECK(near(out.read(), want, 0));
      shardwise::fill_normal<T>(want.data(), 7, 9, first, n, T(1.0f), T(2.0f));
      device::fill_normal(dtype_of<T>, out.data(), 7, 9, {first, n}, 1, 2, stream());
      CHECK(near(out.read(), want, 8));
    }
  // Rows of rows: 2 x 4 of them, 3 elements each, two elements apart where they go.
  for (const std::int64_t first : {0, 5}) {
    const device::RandomRows rows{
        .first = first, .length = 3, .rank = 2, .extents = {2, 4}, .index_strides = {101, 7}, .out_strides = {20, 5}};
    std::vector<T> uniform(40), normal(40);
    for (std::int64_t i = 0; i < 8; ++i) {
      const std::int64_t at = i / 4 * 20 + i % 4 * 5, index = first + i / 4 * 101 + i % 4 * 7;
      shardwise::fill_uniform<T>(uniform.data() + at, 7, 9, index, 3);
      shardwise::fill_normal<T>(normal.data() + at, 7, 9, index, 3);
    }
    const OnDevice<T> a(uniform.size()), b(normal.size());
    device::fill_uniform(dtype_of<T>, a.data(), 7, 9, rows, 0, 1, stream());
    device::fill_normal(dtype_of<T>, b.data(), 7, 9, rows, 0, 1, stream());
    CHECK(near(a.read(), uniform, 0));
    CHECK(near(b.read(), normal, 8));
  }
}

SHARDWISE_DEVICE_TEST("random numbers are those of the host, wherever a part begins") {
  check_random<float>();
  check_random<double>();
  check_random<bfloat16>();
  check_random<half>();
}

}  // namespace
