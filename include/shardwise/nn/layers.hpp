// The layers: Linear, Embedding, LayerNorm, RMSNorm, Dropout and activations, each an aggregate of parameters and
// configuration, made on one device by a function of the same name. Layer: nn.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>

#include <shardwise/nn/param.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/tensor/random.hpp>

namespace shardwise::nn {

/// y = x W^T + b with W (out, in) and b (out). PyTorch: `torch.nn.Linear`.
template <class Scope>
struct Linear {
  using layer_kind = LinearLayer;
  Param<Scope, "weight", 2, LinearLayer> weight;
  Param<Scope, "bias", 1, LinearLayer> bias;
  auto operator()(const auto& x) const {
    SHARDWISE_REQUIRE(weight.defined(),
                      "shardwise::nn::Linear: it has no weight yet; make it with nn::linear(in, out)");
    return shardwise::linear(x, weight.tensor(), bias.tensor());
  }
};

struct LinearOptions {
  bool bias = true;
};

/// A linear layer, uniform in +-1/sqrt(in) as PyTorch initialises it.
template <RealElement T = float>
[[gnu::cold]] Linear<Unsharded<T>> linear(std::int64_t in_features, std::int64_t out_features,
                                          const LinearOptions& options = {}) {
  const double bound = in_features > 0 ? 1.0 / std::sqrt(static_cast<double>(in_features)) : 0.0;
  const T low = static_cast<T>(static_cast<float>(-bound));
  const T high = static_cast<T>(static_cast<float>(bound));
  Linear<Unsharded<T>> layer;
  layer.weight = detail::fill_with_uniform(Tensor<T, 2>({out_features, in_features}), low, high);
  if (options.bias) layer.bias = detail::fill_with_uniform(Tensor<T, 1>({out_features}), low, high);
  return layer;
}

/// Rows of a table by index. PyTorch: `torch.nn.Embedding`.
template <class Scope>
struct Embedding {
  using layer_kind = EmbeddingLayer;
  Param<Scope, "weight", 2, EmbeddingLayer> weight;
  auto operator()(const auto& index) const {
    SHARDWISE_REQUIRE(
        weight.defined(),
        "shardwise::nn::Embedding: it has no table yet; make it with nn::embedding(vocabulary, features)");
    return shardwise::embedding(weight.tensor(), index);
  }
};

/// A table of standard normal rows.
template <RealElement T = float>
Embedding<Unsharded<T>> embedding(std::int64_t vocabulary, std::int64_t features) {
  return {detail::fill_with_normal(Tensor<T, 2>({vocabulary, features}))};
}

/// Over the last dimension. PyTorch: `torch.nn.LayerNorm`.
template <class Scope>
struct LayerNorm {
  using layer_kind = OtherLayer;
  Param<Scope, "weight", 1> weight;
  Param<Scope, "bias", 1> bias;
  double eps = 1e-5;
  auto operator()(const auto& x) const {
    return shardwise::layer_norm(x, weight.tensor(), bias.tensor(), {.eps = eps});
  }
};

struct LayerNormOptions {
  double eps = 1e-5;
  bool elementwise_affine = true;
  bool bias = true;
};

template <RealElement T = float>
LayerNorm<Unsharded<T>> layer_norm(std::int64_t features, const LayerNormOptions& options = {}) {
  LayerNorm<Unsharded<T>> layer;
  layer.eps = options.eps;
  if (options.elementwise_affine) layer.weight = ones<T>({features});
  if (options.elementwise_affine && options.bias) layer.bias = zeros<T>({features});
  return layer;
}

/// Over the last dimension; eps not positive: the element type's epsilon. PyTorch: `torch.nn.RMSNorm`.
template <class Scope>
struct RMSNorm {
  using layer_kind = OtherLayer;
  Param<Scope, "weight", 1> weight;
  double eps = 0;
  auto operator()(const auto& x) const { return shardwise::rms_norm(x, weight.tensor(), {.eps = eps}); }
};

struct RMSNormOptions {
  double eps = 0;
  bool elementwise_affine = true;
};

template <RealElement T = float>
RMSNorm<Unsharded<T>> rms_norm(std::int64_t features, const RMSNormOptions& options = {}) {
  RMSNorm<Unsharded<T>> layer;
  layer.eps = options.eps;
  if (options.elementwise_affine) layer.weight = ones<T>({features});
  return layer;
}

/// Zeroes elements with probability p while `training`; the mask is the one-device mask on any mesh.
/// PyTorch: `torch.nn.Dropout`.
template <class Scope>
struct Dropout {
  using layer_kind = OtherLayer;
  double p = 0.5;
  bool training = true;
  auto operator()(const auto& x) const { return training && p > 0 ? shardwise::dropout(x, p) : x; }
};

template <RealElement T = float>
Dropout<Unsharded<T>> dropout(double p = 0.5) {
  return {p, true};
}

/// Activations where a module is wanted.
template <class Scope>
struct ReLU {
  using layer_kind = OtherLayer;
  auto operator()(const auto& x) const { return shardwise::relu(x); }
};
template <class Scope>
struct GELU {
  using layer_kind = OtherLayer;
  Approximate approximate = Approximate::none;
  auto operator()(const auto& x) const { return shardwise::gelu(x, {.approximate = approximate}); }
};
template <class Scope>
struct SiLU {
  using layer_kind = OtherLayer;
  auto operator()(const auto& x) const { return shardwise::silu(x); }
};
template <class Scope>
struct Tanh {
  using layer_kind = OtherLayer;
  auto operator()(const auto& x) const { return shardwise::tanh(x); }
};

}  // namespace shardwise::nn
