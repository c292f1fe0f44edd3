// The local kernels against what PyTorch computed: forward and backward of each case of attention_blocks.json.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <shardwise/ops/kernels/cross_entropy.hpp>
#include <shardwise/ops/kernels/gemm.hpp>
#include <shardwise/ops/kernels/index.hpp>
#include <shardwise/ops/kernels/norm.hpp>
#include <shardwise/ops/kernels/reduce.hpp>
#include <shardwise/ops/kernels/softmax.hpp>
#include <shardwise/ops/kernels/unary.hpp>
#include <support/json.hpp>

namespace {

using namespace shardwise::detail::kernels;
using Values = std::vector<double>;
using Indices = std::vector<std::int64_t>;
using test::Json;
using test::JsonTensor;

void check_close(const Values& got, const Json& expected, const char* what) {
  const Values want = JsonTensor<double>(expected).data;
  REQUIRE_MESSAGE(got.size() == want.size(), what);
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    const bool close = std::isnan(want[i]) ? std::isnan(got[i])
                                           : got[i] == want[i] ||
                                                 std::abs(got[i] - want[i]) <= 1e-12 * std::max(1.0, std::abs(want[i]));
    CHECK_MESSAGE(close, what, ": ", got[i], " for ", want[i]);
  }
}

std::int64_t length(const Values& v) { return static_cast<std::int64_t>(v.size()); }

void check_norm(const Json& c, bool centered) {
  const JsonTensor<double> x(c["inputs"]["x"]);
  const Values dy = JsonTensor<double>(c["grad_output"]).data;
  const std::int64_t width = x.shape.back(), rows = length(x.data) / width;
  const Json& params = c["params"];
  const auto n = static_cast<std::size_t>(width), r = static_cast<std::size_t>(rows);
  Values weight, bias, y(x.data.size()), dx(x.data.size()), dw(n), db(n), mean(r), rstd(r);
  if (params.has("weight")) weight = JsonTensor<double>(params["weight"]).data;
  if (params.has("bias")) bias = JsonTensor<double>(params["bias"]).data;
  const double* w = weight.empty() ? nullptr : weight.data();
  const double* b = bias.empty() ? nullptr : bias.data();
  const double eps = c["attrs"]["eps"].number();
  if (centered) {
    layer_norm(x.data.data(), w, b, eps, rows, width, y.data(), mean.data(), rstd.data());
    layer_norm_backward(x.data.data(), w, dy.data(), mean.data(), rstd.data(), rows, width, dx.data(),
                        w != nullptr ? dw.data() : nullptr, b != nullptr ? db.data() : nullptr);
  } else {
    rms_norm(x.data.data(), w, eps, rows, width, y.data(), rstd.data());
    rms_norm_backward(x.data.data(), w, dy.data(), rstd.data(), rows, width, dx.data(),
                      w != nullptr ? dw.data() : nullptr);
  }
  check_close(y, c["output"], "output");
  check_close(dx, c["grads"]["x"], "dx");
  if (w != nullptr) check_close(dw, c["grads"]["weight"], "dweight");
  if (b != nullptr) check_close(db, c["grads"]["bias"], "dbias");
}

void check_unary(const Json& c, Unary f) {
  const Values x = JsonTensor<double>(c["inputs"]["x"]).data, dy = JsonTensor<double>(c["grad_output"]).data;
  Values y(x.size()), dx(x.size());
  unary(f, x.data(), y.data(), length(x));
  unary_backward(f, x.data(), y.data(), dy.data(), dx.data(), length(x));
  check_close(y, c["output"], "output");
  check_close(dx, c["grads"]["x"], "dx");
}

void check_softmax(const Json& c, bool logarithm) {
  const JsonTensor<double> x(c["inputs"]["x"]);
  const Values dy = JsonTensor<double>(c["grad_output"]).data;
  const std::int64_t rank = static_cast<std::int64_t>(x.shape.size());
  const std::int64_t dim = (c["attrs"]["dim"].integer() + rank) % rank;
  std::int64_t outer = 1, inner = 1;
  for (std::int64_t d = 0; d < rank; ++d)
    if (d != dim) (d < dim ? outer : inner) *= x.shape[static_cast<std::size_t>(d)];
  const std::int64_t n = x.shape[static_cast<std::size_t>(dim)];
  Values y(x.data.size()), dx(x.data.size());
  if (logarithm) {
    log_softmax(x.data.data(), y.data(), outer, n, inner);
    log_softmax_backward(y.data(), dy.data(), dx.data(), outer, n, inner);
  } else {
    softmax(x.data.data(), y.data(), outer, n, inner);
    softmax_backward(y.data(), dy.data(), dx.data(), outer, n, inner);
  }
  check_close(y, c["output"], "output");
  check_close(dx, c["grads"]["x"], "dx");
}

void check_cross_entropy(const Json& c) {
  const JsonTensor<double> logits(c["inputs"]["logits"]);
  const Indices target = JsonTensor<std::int64_t>(c["inputs"]["target"]).data;
  const Values dy = JsonTensor<double>(c["grad_output"]).data;
  const Json& attrs = c["attrs"];
  Values weight;
  if (attrs.has("class_weight") && !attrs["class_weight"].is_null())
    weight = JsonTensor<double>(attrs["class_weight"]).data;
  CrossEntropyArguments<double> in{logits.shape[0], logits.shape[1], logits.shape.size() > 2 ? logits.shape[2] : 1,
                                   logits.data.data(), target.data()};
  in.weight = weight.empty() ? nullptr : weight.data();
  in.ignore_index = attrs["ignore_index"].integer();
  in.label_smoothing = attrs["label_smoothing"].number();
  Values loss(target.size()), saved(2 * target.size()), dx(logits.data.size());
  const CrossEntropySums sums = cross_entropy(in, loss.data(), saved.data());
  const std::string& reduction = attrs["reduction"].string();
  if (reduction == "none") {
    check_close(loss, c["output"], "output");
    cross_entropy_backward(in, saved.data(), dy.data(), 1.0, dx.data());
  } else {
    const double divisor = reduction == "mean" ? sums.weight : 1;
    check_close({sums.loss / divisor}, c["output"], "output");
    cross_entropy_backward(in, saved.data(), static_cast<const double*>(nullptr), dy[0] / divisor, dx.data());
  }
  check_close(dx, c["grads"]["logits"], "dlogits");
}

void check_embedding(const Json& c) {
  const JsonTensor<double> table(c["params"]["weight"]);
  const Indices index = JsonTensor<std::int64_t>(c["inputs"]["indices"]).data;
  const Values dy = JsonTensor<double>(c["grad_output"]).data;
  const std::int64_t rows = table.shape[0], width = table.shape[1], n = static_cast<std::int64_t>(index.size());
  // The table as one piece, and as three uneven shards whose outputs add up and whose gradients are concatenated.
  for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{0, rows}, {0, 5, 5, rows}}) {
    Values y(dy.size()), part(dy.size()), dtable(table.data.size());
    for (std::size_t s = 0; s + 1 < cuts.size(); ++s) {
      const std::int64_t first = cuts[s], count = cuts[s + 1] - first;
      embedding(table.data.data() + first * width, first, count, rows, width, index.data(), n, part.data());
      add_to(y.data(), part.data(), length(y));
      embedding_backward(dy.data(), index.data(), n, first, count, width, dtable.data() + first * width);
    }
    check_close(y, c["output"], "output");
    check_close(dtable, c["grads"]["weight"], "dweight");
  }
}

// x (rows, in) W1' and so on: the products and activations composed by hand, forward and backward.
void check_mlp(const Json& c, bool gated) {
  const JsonTensor<double> x(c["inputs"]["x"]);
  const Values dy = JsonTensor<double>(c["grad_output"]).data;
  const std::int64_t in = c["attrs"]["in"].integer(), hidden = c["attrs"]["hidden"].integer();
  const std::int64_t rows = length(x.data) / in, size = rows * hidden;
  const auto param = [&](const char* name) { return JsonTensor<double>(c["params"][name]).data; };
  const Values w1 = param("w1"), w2 = param("w2");
  const auto n = static_cast<std::size_t>(size);
  const Unary f = gated ? Unary::silu : Unary::gelu;
  Values h(n), a(n), g(n), da(n), dh(n), y(dy.size()), dx(x.data.size()), dw1(w1.size()), dw2(w2.size());
  gemm(false, true, rows, hidden, in, x.data.data(), w1.data(), h.data(), false);
  if (!gated) {
    const Values b1 = param("b1");
    for (std::size_t i = 0; i < n; ++i) h[i] += b1[i % b1.size()];
  }
  unary(f, h.data(), a.data(), size);
  Values w3, third(n), product = a;
  if (gated) {
    w3 = param("w3");
    gemm(false, true, rows, hidden, in, x.data.data(), w3.data(), third.data(), false);
    for (std::size_t i = 0; i < n; ++i) product[i] *= third[i];
  } else {
    const Values b2 = param("b2");
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = b2[i % b2.size()];
  }
  gemm(false, true, rows, in, hidden, product.data(), w2.data(), y.data(), !gated);
  check_close(y, c["output"], "output");

  gemm(true, false, in, hidden, rows, dy.data(), product.data(), dw2.data(), false);
  gemm(false, false, rows, hidden, in, dy.data(), w2.data(), da.data(), false);
  if (gated) {
    Values dthird(n), dw3(w3.size());
    for (std::size_t i = 0; i < n; ++i) dthird[i] = da[i] * a[i], da[i] *= third[i];
    gemm(true, false, hidden, in, rows, dthird.data(), x.data.data(), dw3.data(), false);
    gemm(false, false, rows, in, hidden, dthird.data(), w3.data(), dx.data(), false);
    check_close(dw3, c["grads"]["w3"], "dw3");
  }
  unary_backward(f, h.data(), a.data(), da.data(), dh.data(), size);
  gemm(true, false, hidden, in, rows, dh.data(), x.data.data(), dw1.data(), false);
  gemm(false, false, rows, in, hidden, dh.data(), w1.data(), dx.data(), gated);
  check_close(dx, c["grads"]["x"], "dx");
  check_close(dw1, c["grads"]["w1"], "dw1");
  check_close(dw2, c["grads"]["w2"], "dw2");
  if (!gated) {
    Values db1(static_cast<std::size_t>(hidden)), db2(static_cast<std::size_t>(in));
    sum_dim(dh.data(), db1.data(), 1, rows, hidden);
    sum_dim(dy.data(), db2.data(), 1, rows, in);
    check_close(db1, c["grads"]["b1"], "db1");
    check_close(db2, c["grads"]["b2"], "db2");
  }
}

TEST_CASE("every building block agrees with PyTorch, forward and backward") {
  const Json file = Json::load("attention_blocks.json");
  int checked = 0, attention = 0;
  for (const Json& c : file["cases"].items()) {
    const std::string& op = c["op"].string();
    INFO("case: ", c["name"].string());
    ++checked;
    if (op == "layer_norm")
      check_norm(c, true);
    else if (op == "rms_norm")
      check_norm(c, false);
    else if (op == "embedding")
      check_embedding(c);
    else if (op == "gelu")
      check_unary(c, c["attrs"]["approximate"].string() == "tanh" ? Unary::gelu_tanh : Unary::gelu);
    else if (op == "silu")
      check_unary(c, Unary::silu);
    else if (op == "relu")
      check_unary(c, Unary::relu);
    else if (op == "softmax")
      check_softmax(c, false);
    else if (op == "log_softmax")
      check_softmax(c, true);
    else if (op == "cross_entropy")
      check_cross_entropy(c);
    else if (op == "swiglu_mlp")
      check_mlp(c, true);
    else if (op == "gelu_mlp")
      check_mlp(c, false);
    else if (op == "scaled_dot_product_attention")
      --checked, ++attention;
    else
      FAIL("a case of an unknown operation");
  }
  CHECK(checked == 49);
  CHECK(attention == 5);  // no kernel of its own
}

}  // namespace
