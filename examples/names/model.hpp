// The model, written once, and the plan that shards it.
//
// Bengio et al., "A Neural Probabilistic Language Model" (2003), over characters: the last 8 characters are embedded, laid
// side by side, and two linear layers with a tanh between them give a score for every character that may follow.
#pragma once

#include <cstdint>

#include <shardwise/shardwise.hpp>

#include "corpus.hpp"

namespace names {

using namespace shardwise;

inline constexpr std::int64_t embedding_size = 16;

template <class Scope = Unsharded<float>>
struct NameModel {
  Child<Scope, "embedding", nn::Embedding> embedding;
  Child<Scope, "hidden", nn::Linear> hidden;
  Child<Scope, "output", nn::Linear> output;

  // Logits (batch, vocabulary) of a batch of contexts (batch, 8).
  auto operator()(const auto& contexts) const {
    const std::int64_t batch = contexts.shape()[0];
    const auto letters = embedding(contexts);  // (batch, 8, 16)
    const auto line = reshape(letters, {batch, context_size * embedding_size});  // (batch, 128)
    return output(tanh(hidden(line)));
  }
};

// Each rank holds some characters' rows of the embedding, some units of the hidden layer, and what the output layer makes of
// these units; sizes need not divide. A step costs two sums over the ranks forward and one backward.
inline constexpr auto plan = parallelize_plan("embedding"_path = RowwiseParallel{.input_layouts = Replicate{}},
                                              "hidden"_path = ColwiseParallel{}, "output"_path = RowwiseParallel{});

template <class T>
NameModel<Unsharded<T>> make_model(std::int64_t vocabulary, std::int64_t hidden, std::uint64_t seed) {
  manual_seed(seed);
  return {nn::embedding<T>(vocabulary, embedding_size), nn::linear<T>(context_size * embedding_size, hidden),
          nn::linear<T>(hidden, vocabulary)};
}

}  // namespace names
