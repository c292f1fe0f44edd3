// softmax, norms, cross entropy and embedding on one device: gradients against central differences.
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/ops/softmax.hpp>

#include "support/gradients.hpp"

using namespace shardwise;
using namespace test;

TEST_CASE("gradients of softmax and log_softmax along each dimension") {
  const auto x = values({2, 3, 4}, 1, -2, 2);
  check_gradient([](const auto& v) { return softmax(v); }, x);
  check_gradient([](const auto& v) { return softmax<0>(v); }, x);
  check_gradient([](const auto& v) { return softmax<1>(v); }, x);
  check_gradient([](const auto& v) { return log_softmax(v); }, x);
  check_gradient([](const auto& v) { return log_softmax<0>(v); }, x);
  check_gradient([](const auto& v) { return log_softmax<-2>(v); }, x);
}

TEST_CASE("gradients of layer_norm and rms_norm, with and without weight and bias") {
  const auto x = values({2, 3, 5}, 1, -2, 2);
  const auto w = values({5}, 2, 0.5, 2), b = values({5}, 3);
  check_gradient([](const auto& v, const auto& p, const auto& q) { return layer_norm(v, p, q); }, x, w, b);
  check_gradient([](const auto& v, const auto& p) { return layer_norm(v, p, Tensor<double, 1>(), {.eps = 0.1}); }, x,
                 w);
  check_gradient([](const auto& v, const auto& q) { return layer_norm(v, Tensor<double, 1>(), q); }, x, b);
  check_gradient([](const auto& v) { return layer_norm(v); }, x);
  check_gradient([](const auto& v, const auto& p) { return rms_norm(v, p); }, x, w);
  check_gradient([](const auto& v) { return rms_norm(v, {.eps = 0.1}); }, x);
  // wider than the strip of columns in which the gradient of the weight is summed
  const auto wide = values({2, 260}, 1, -2, 2);
  check_gradient([&](const auto& p, const auto& q) { return layer_norm(wide, p, q); }, values({260}, 2, 0.5, 2),
                 values({260}, 3));
  check_gradient([&](const auto& p) { return rms_norm(wide, p); }, values({260}, 2, 0.5, 2));
  CHECK_THROWS_AS(layer_norm(x, values({4}, 1), b), ShapeError);
  CHECK_THROWS_AS(layer_norm(x, w, values({6}, 1)), ShapeError);
  CHECK_THROWS_AS(rms_norm(x, values({4}, 1)), ShapeError);
}

template <Reduction How>
void check_cross_entropy(const CrossEntropyOptions<double>& options) {
  const auto rows = [](std::initializer_list<std::int64_t> list) {
    Tensor<std::int64_t, 1> t(Shape<1>{static_cast<std::int64_t>(list.size())});
    std::copy(list.begin(), list.end(), t.data());
    return t;
  };
  const auto target = rows({0, 3, -100, 1, 2});
  check_gradient([&](const auto& v) { return cross_entropy<How>(v, target, options); }, values({5, 4}, 1, -2, 2));
  const auto deep = reshape(rows({0, 3, 2, 1, -100, 2}), {2, 3});
  check_gradient([&](const auto& v) { return cross_entropy<How>(v, deep, options); }, values({2, 4, 3}, 1, -2, 2));
}

TEST_CASE("gradients of cross_entropy: reductions, ignored targets, smoothing, weights, extra dimensions") {
  const auto weight = values({4}, 9, 0.5, 2);
  for (const double smoothing : {0.0, 0.2})
    for (const auto& w : {Tensor<double, 1>(), weight}) {
      const CrossEntropyOptions<double> options{.weight = w, .label_smoothing = smoothing};
      check_cross_entropy<Reduction::mean>(options);
      check_cross_entropy<Reduction::sum>(options);
      check_cross_entropy<Reduction::none>(options);
    }
}

TEST_CASE("cross_entropy refuses what it cannot mean") {
  const auto x = values({3, 4}, 1);
  auto target = indices({3}, 4, 1);
  CHECK_THROWS_AS(cross_entropy(x, indices({2}, 4, 1)), ShapeError);
  CHECK_THROWS_AS(cross_entropy(x, target, {.weight = ones<double>({3})}), ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, target, {.label_smoothing = 2}),
                       "shardwise::cross_entropy: a label smoothing of 2.000000; it lies in [0, 1]", Error);
  target.data()[1] = 4;
  CHECK_THROWS_AS(cross_entropy(x, target), Error);
  CHECK_NOTHROW(cross_entropy(x, target, {.ignore_index = 4}));
}

TEST_CASE("gradients of embedding: rows used twice and never") {
  const auto table = values({7, 3}, 1);
  check_gradient([](const auto& w) { return embedding(w, indices({5}, 6, 1)); }, table);
  check_gradient([](const auto& w) { return embedding(w, indices({2, 4}, 3, 2)); }, table);
  check_gradient([](const auto& w) { return embedding(w, Tensor<std::int64_t, 1>(Shape<1>{0})); }, table);
  auto wrong = indices({2}, 7, 1);
  wrong.data()[0] = 7;
  CHECK_THROWS_AS(embedding(table, wrong), Error);
  wrong.data()[0] = -1;
  CHECK_THROWS_AS(embedding(table, wrong), Error);
}
