#include "training.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <type_traits>
#include <utility>

#include <shardwise/shardwise.hpp>

#include "model.hpp"
#include "ranks.hpp"
#include "report.hpp"

namespace names {

namespace {

constexpr double learning_rate = 0.1;  // at first; it falls to nothing by the last step
constexpr double momentum = 0.9;

template <class X>
using OnRank = std::remove_cvref_t<decltype(to_rank(std::declval<X>()))>;

struct Batch {
  OnRank<Tensor<std::int64_t, 2>> contexts;  // (batch, 8)
  OnRank<Tensor<std::int64_t, 1>> targets;  // (batch)
};

// `count` examples, chosen by index(0), index(1), ...
template <class Index>
Batch make_batch(const Examples& examples, std::int64_t count, Index index) {
  auto contexts = zeros<std::int64_t>({count, context_size});
  auto targets = zeros<std::int64_t>({count});
  for (std::int64_t row = 0; row < count; ++row) {
    const std::size_t i = index(row);
    std::copy_n(examples.context(i), context_size, contexts.data() + row * context_size);
    targets.data()[row] = examples.target(i);
  }
  return {to_rank(contexts), to_rank(targets)};
}

// One step of gradient descent; the model may be sharded or not. The loss before it.
double train_step(const auto& model, optim::SGD& optimizer, const Batch& batch) {
  const auto loss = cross_entropy(model(batch.contexts), batch.targets);
  optimizer.zero_grad();
  backward(loss);
  optimizer.step();
  return static_cast<double>(from_rank(loss).item());
}

double mean_loss(const auto& model, const Examples& examples) {
  const NoGrad no_grad;
  constexpr std::int64_t rows = 1024;
  const auto all = static_cast<std::int64_t>(examples.size());
  double sum = 0;
  for (std::int64_t first = 0; first < all; first += rows) {
    const std::int64_t count = std::min(rows, all - first);
    const Batch batch =
        make_batch(examples, count, [&](std::int64_t row) { return static_cast<std::size_t>(first + row); });
    const auto loss = from_rank(cross_entropy(model(batch.contexts), batch.targets));
    sum += static_cast<double>(loss.item()) * static_cast<double>(count);
  }
  return sum / static_cast<double>(all);
}

// A token as likely as its logit says; padding is none.
template <class T>
std::int64_t drawn_token(const T* logits, std::int64_t vocabulary, std::mt19937_64& generator) {
  const T largest = *std::max_element(logits, logits + vocabulary);
  std::vector<double> weight(static_cast<std::size_t>(vocabulary), 0.0);
  double all = 0;
  for (std::int64_t token = Vocabulary::end; token < vocabulary; ++token)
    all += weight[static_cast<std::size_t>(token)] = std::exp(static_cast<double>(logits[token] - largest));
  double rest = all * static_cast<double>(generator() >> 11) * 0x1p-53;
  for (std::int64_t token = Vocabulary::end; token < vocabulary; ++token)
    if ((rest -= weight[static_cast<std::size_t>(token)]) < 0) return token;
  return Vocabulary::end;
}

// Ten words at once, character by character. All ranks draw the same ones: the logits are replicated, bit by bit.
std::vector<std::vector<std::int64_t>> draw_words(const auto& model, std::int64_t vocabulary,
                                                  std::mt19937_64& generator) {
  constexpr std::int64_t count = 10;
  constexpr std::size_t longest = 24;
  std::vector<std::vector<std::int64_t>> words(count, std::vector<std::int64_t>(context_size, Vocabulary::padding));
  for (std::size_t length = 0; length < longest; ++length) {
    auto contexts = zeros<std::int64_t>({count, context_size});
    for (std::int64_t row = 0; row < count; ++row)
      std::copy_n(words[static_cast<std::size_t>(row)].end() - context_size, context_size,
                  contexts.data() + row * context_size);
    const auto logits = from_rank(model(to_rank(contexts)));
    for (std::int64_t row = 0; row < count; ++row) {
      auto& word = words[static_cast<std::size_t>(row)];
      const bool ended = word.back() == Vocabulary::end;
      word.push_back(ended ? Vocabulary::end : drawn_token(logits.data() + row * vocabulary, vocabulary, generator));
    }
  }
  return words;
}

// Ten words that the list does not have. A model of a small text may know hardly any others: after some tries its own
// words do as well.
std::vector<std::string> invent_words(const auto& model, const Corpus& corpus, std::uint64_t seed) {
  const NoGrad no_grad;
  std::mt19937_64 generator(seed);
  std::vector<std::string> invented;
  for (int attempt = 0; attempt < 40 && invented.size() < 10; ++attempt)
    for (const auto& tokens : draw_words(model, corpus.vocabulary.size(), generator)) {
      const std::string word = corpus.vocabulary.text(tokens);
      const bool is_new = !corpus.words.contains(word) || attempt >= 20;
      if (invented.size() < 10 && !word.empty() && is_new) invented.push_back(word);
    }
  return invented;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What each rank runs. Rank 0 also has the one-device model: it takes its steps while the other ranks wait.
template <class T>
void train_on_rank(const World& world, const Options& options, const Corpus& corpus, Progress& progress,
                   Result& result) {
  const bool reports = world.rank() == 0;
  const auto mesh = init_device_mesh<"tp">(world, {world.size()});
  const auto made = make_model<T>(corpus.vocabulary.size(), options.hidden, options.seed);
  auto parallel = parallelize_module<plan>(made, mesh);  // a copy
  auto one_device = to_rank(made);
  optim::SGD one_device_optimizer(parameters(one_device), {.lr = learning_rate, .momentum = momentum});
  optim::SGD parallel_optimizer(parameters(parallel), {.lr = learning_rate, .momentum = momentum});

  std::mt19937_64 order(options.seed);  // the same batches on all ranks
  for (std::int64_t step = 0; step < options.steps; ++step) {
    const Batch batch = make_batch(corpus.training, batch_size, [&](std::int64_t) {
      return static_cast<std::size_t>(order() % corpus.training.size());
    });
    const double left = static_cast<double>(options.steps - step) / static_cast<double>(options.steps);
    one_device_optimizer.options().lr = parallel_optimizer.options().lr = learning_rate * left;

    if (reports) {
      const auto start = std::chrono::steady_clock::now();
      result.one_device.losses.push_back(train_step(one_device, one_device_optimizer, batch));
      result.one_device.seconds += seconds_since(start);
    }
    world.barrier();
    std::optional<CommDebugMode> communication;
    if (step == 0) communication.emplace();
    const auto start = std::chrono::steady_clock::now();
    const double loss = train_step(parallel, parallel_optimizer, batch);
    if (reports) {
      result.parallel.seconds += seconds_since(start);
      result.parallel.losses.push_back(loss);
      if (communication) result.communication = communication->table();
      progress.step(result.one_device.losses.back(), loss);
    }
  }

  if (reports) result.one_device.held_out_loss = mean_loss(one_device, corpus.held_out);
  const double held_out_loss = mean_loss(parallel, corpus.held_out);
  const auto invented = invent_words(parallel, corpus, options.seed);
  if (reports) {
    result.parallel.held_out_loss = held_out_loss;
    result.invented = invented;
    for_each_parameter(made, [&](std::string_view, const auto& p) { result.parameters += p.size(); });
  }
}

template <class T>
Result train_as(const Options& options, const Corpus& corpus, Progress& progress) {
  Result result;  // written by rank 0 alone
  on_ranks(options.ranks, [&](const World& world) { train_on_rank<T>(world, options, corpus, progress, result); });
  return result;
}

}  // namespace

Result train(const Options& options, const Corpus& corpus, Progress& progress) {
  return options.precision == Precision::single ? train_as<float>(options, corpus, progress)
                                                : train_as<double>(options, corpus, progress);
}

}  // namespace names
