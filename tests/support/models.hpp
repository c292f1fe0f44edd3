// Models that several tests train: PyTorch's MLPModule and MLPStacked, and the Transformer of its tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/shardwise.hpp>

#include "support/mlp.hpp"

namespace test {

using namespace shardwise;

inline Mlp<> mlp(std::int64_t in, std::int64_t hidden, std::int64_t out, std::uint64_t seed = 5) {
  manual_seed(seed);
  return {nn::linear(in, hidden), nn::linear(hidden, out)};
}

template <class Scope = Unsharded<float>>
struct Stacked {
  ChildList<Scope, "layers", Mlp> layers;
  auto operator()(const auto& x) const {
    auto y = layers[0](x);
    for (std::size_t i = 1; i < layers.size(); ++i) y = layers[i](y);
    return y;
  }
};

inline Stacked<> stacked(std::int64_t in, std::int64_t hidden) { return {{mlp(in, hidden, in), mlp(in, hidden, in)}}; }

/// A product and a sum stand for the softmax: what is communicated is the same.
template <class Scope>
struct Attention {
  Child<Scope, "wq", nn::Linear> wq;
  Child<Scope, "wk", nn::Linear> wk;
  Child<Scope, "wv", nn::Linear> wv;
  Child<Scope, "wo", nn::Linear> wo;
  auto operator()(const auto& x) const { return wo(wq(x) * wk(x) + wv(x)); }
};

template <class Scope>
struct FeedForward {
  Child<Scope, "w1", nn::Linear> w1;
  Child<Scope, "w2", nn::Linear> w2;
  auto operator()(const auto& x) const { return w2(gelu(w1(x))); }
};

template <class Scope>
struct Layer {
  Child<Scope, "attention_norm", nn::LayerNorm> attention_norm;
  Child<Scope, "attention", Attention> attention;
  Child<Scope, "ffn_norm", nn::LayerNorm> ffn_norm;
  Child<Scope, "feed_forward", FeedForward> feed_forward;
  auto operator()(const auto& x) const {
    const auto h = x + attention(attention_norm(x));
    return h + feed_forward(ffn_norm(h));
  }
};

/// Tokens (batch, sequence) and positions (sequence) to logits (batch, sequence, vocabulary).
template <class Scope = Unsharded<float>>
struct Transformer {
  Child<Scope, "tok_embeddings", nn::Embedding> tok_embeddings;
  Child<Scope, "pos_embeddings", nn::Embedding> pos_embeddings;
  ChildList<Scope, "layers", Layer> layers;
  Child<Scope, "norm", nn::LayerNorm> norm;
  Child<Scope, "output", nn::Linear> output;
  auto operator()(const auto& tokens, const auto& positions) const {
    auto h = tok_embeddings(tokens) + pos_embeddings(positions);
    for (std::size_t i = 0; i < layers.size(); ++i) h = layers[i](h);
    return output(norm(h));
  }
};

inline Transformer<> transformer(std::int64_t vocabulary, std::int64_t features, std::int64_t sequence) {
  const auto square = [&] { return nn::linear(features, features); };
  const auto layer = [&]() -> Layer<Unsharded<float>> {
    return {nn::layer_norm(features), Attention<Unsharded<float>>{square(), square(), square(), square()},
            nn::layer_norm(features),
            FeedForward<Unsharded<float>>{nn::linear(features, 4 * features), nn::linear(4 * features, features)}};
  };
  return {nn::embedding(vocabulary, features),
          nn::embedding(sequence, features),
          {layer(), layer()},
          nn::layer_norm(features),
          nn::linear(features, vocabulary, {.bias = false})};
}

}  // namespace test
