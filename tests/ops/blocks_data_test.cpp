// The operators, called as users call them, against what PyTorch computed: values and gradients of attention_blocks.json.
#include <cmath>
#include <string>

#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/ops/softmax.hpp>

#include <doctest/doctest.h>

#include "support/json.hpp"

using namespace shardwise;
using test::Json;
using test::JsonTensor;

namespace {

template <class T, std::size_t R>
Tensor<T, R> read(const Json& json) {
  const JsonTensor<T> from(json);
  Shape<R> shape{};
  REQUIRE(from.shape.size() == R);
  for (std::size_t d = 0; d < R; ++d) shape[d] = from.shape[d];
  Tensor<T, R> x(shape);
  for (std::size_t i = 0; i < from.data.size(); ++i) x.data()[i] = from.data[i];
  return x;
}
template <std::size_t R>
Tensor<double, R> leaf(const Json& json) {
  auto x = read<double, R>(json);
  x.requires_grad(true);
  return x;
}

template <std::size_t R>
void check_same(const Tensor<double, R>& x, const Json& expected) {
  const auto y = read<double, R>(expected);
  REQUIRE(x.shape() == y.shape());
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double a = x.data()[i], b = y.data()[i];
    INFO("element ", i, ": ", a, " instead of ", b);
    CHECK(((a != a && b != b) || std::fabs(a - b) <= 1e-12 * (1 + std::fabs(b))));
  }
}

// Output, and the gradient of each leaf under its name.
template <std::size_t R>
void check_case(const Json& c, const Tensor<double, R>& y) {
  check_same(detach(y), c["output"]);
  backward(y, read<double, R>(c["grad_output"]));
}
template <std::size_t R>
void check_grad(const Json& c, const char* name, const Tensor<double, R>& x) {
  INFO("gradient of ", name);
  check_same(x.grad(), c["grads"][name]);
}

template <std::size_t R>
void check_norm(const Json& c, bool layer) {
  const auto x = leaf<R>(c["inputs"]["x"]);
  const double eps = c["attrs"]["eps"].number();
  Tensor<double, 1> w, b;
  if (c["params"].has("weight")) w = leaf<1>(c["params"]["weight"]);
  if (c["params"].has("bias")) b = leaf<1>(c["params"]["bias"]);
  check_case(c, layer ? layer_norm(x, w, b, {.eps = eps}) : rms_norm(x, w, {.eps = eps}));
  check_grad(c, "x", x);
  if (w.defined()) check_grad(c, "weight", w);
  if (b.defined()) check_grad(c, "bias", b);
}

template <class F>
void check_unary(const Json& c, F f) {
  const auto x = leaf<1>(c["inputs"]["x"]);
  check_case(c, f(x));
  check_grad(c, "x", x);
}

template <std::size_t R>
void check_softmax(const Json& c, bool log) {
  const auto x = leaf<R>(c["inputs"]["x"]);
  const std::int64_t d = c["attrs"]["dim"].integer();
  if (d == 0)
    check_case(c, log ? log_softmax<0>(x) : softmax<0>(x));
  else if (d == 1)
    check_case(c, log ? log_softmax<1>(x) : softmax<1>(x));
  else
    check_case(c, log ? log_softmax(x) : softmax(x));
  check_grad(c, "x", x);
}

template <std::size_t R>
void check_cross_entropy(const Json& c) {
  const auto x = leaf<R>(c["inputs"]["logits"]);
  const auto t = read<std::int64_t, R - 1>(c["inputs"]["target"]);
  const Json& attrs = c["attrs"];
  CrossEntropyOptions<double> options{.ignore_index = attrs["ignore_index"].integer(),
                                      .label_smoothing = attrs["label_smoothing"].number()};
  if (attrs.has("class_weight") && !attrs["class_weight"].is_null())
    options.weight = read<double, 1>(attrs["class_weight"]);
  const std::string& how = attrs["reduction"].string();
  if (how == "mean")
    check_case(c, cross_entropy(x, t, options));
  else if (how == "sum")
    check_case(c, cross_entropy<Reduction::sum>(x, t, options));
  else
    check_case(c, cross_entropy<Reduction::none>(x, t, options));
  check_grad(c, "logits", x);
}

template <std::size_t R>
void check_embedding(const Json& c) {
  const auto w = leaf<2>(c["params"]["weight"]);
  check_case(c, embedding(w, read<std::int64_t, R>(c["inputs"]["indices"])));
  check_grad(c, "weight", w);
}

void check_swiglu(const Json& c) {
  const auto x = leaf<3>(c["inputs"]["x"]);
  const auto w1 = leaf<2>(c["params"]["w1"]), w2 = leaf<2>(c["params"]["w2"]), w3 = leaf<2>(c["params"]["w3"]);
  check_case(c, linear(silu(linear(x, w1)) * linear(x, w3), w2));
  check_grad(c, "x", x);
  check_grad(c, "w1", w1);
  check_grad(c, "w2", w2);
  check_grad(c, "w3", w3);
}

void check_gelu_mlp(const Json& c) {
  const auto x = leaf<2>(c["inputs"]["x"]);
  const auto w1 = leaf<2>(c["params"]["w1"]), w2 = leaf<2>(c["params"]["w2"]);
  const auto b1 = leaf<1>(c["params"]["b1"]), b2 = leaf<1>(c["params"]["b2"]);
  check_case(c, linear(gelu(linear(x, w1, b1)), w2, b2));
  check_grad(c, "x", x);
  check_grad(c, "w1", w1);
  check_grad(c, "b1", b1);
  check_grad(c, "w2", w2);
  check_grad(c, "b2", b2);
}

TEST_CASE("every building block that is an operator agrees with PyTorch, values and gradients") {
  const Json file = Json::load("attention_blocks.json");
  int checked = 0;
  for (const Json& c : file["cases"].items()) {
    const std::string& op = c["op"].string();
    INFO("case: ", c["name"].string());
    if (op == "scaled_dot_product_attention") continue;  // no operator yet
    ++checked;
    const Json& inputs = c["inputs"];
    const std::size_t rank = inputs[inputs.keys()[0]]["shape"].size();
    if (op == "layer_norm" || op == "rms_norm")
      rank == 2 ? check_norm<2>(c, op == "layer_norm") : check_norm<3>(c, op == "layer_norm");
    else if (op == "embedding")
      rank == 1 ? check_embedding<1>(c) : check_embedding<2>(c);
    else if (op == "gelu")
      check_unary(c, [&](const auto& x) {
        return gelu(
            x, {.approximate = c["attrs"]["approximate"].string() == "tanh" ? Approximate::tanh : Approximate::none});
      });
    else if (op == "silu")
      check_unary(c, [](const auto& x) { return silu(x); });
    else if (op == "relu")
      check_unary(c, [](const auto& x) { return relu(x); });
    else if (op == "softmax" || op == "log_softmax")
      rank == 2 ? check_softmax<2>(c, op == "log_softmax") : check_softmax<3>(c, op == "log_softmax");
    else if (op == "cross_entropy")
      rank == 2 ? check_cross_entropy<2>(c) : check_cross_entropy<3>(c);
    else if (op == "swiglu_mlp")
      check_swiglu(c);
    else if (op == "gelu_mlp")
      check_gelu_mlp(c);
    else
      FAIL("a case of an unknown operation");
  }
  CHECK(checked == 49);
}

}  // namespace
