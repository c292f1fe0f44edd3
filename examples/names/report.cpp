#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <unistd.h>

namespace names {

namespace {

std::string heading_of_ranks(int ranks) { return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks"); }

void print_curves(const Options& options, const Result& result) {
  const auto& one = result.one_device.losses;
  const auto& parallel = result.parallel.losses;
  std::printf("\nLoss of the batch, one device and %s:\n", heading_of_ranks(options.ranks).c_str());
  std::printf("%8s  %12s  %12s  %12s\n", "step", "one device", heading_of_ranks(options.ranks).c_str(), "difference");
  constexpr std::size_t rows = 10;
  std::size_t last = 0;
  for (std::size_t row = 0; row <= rows; ++row) {
    const std::size_t step = std::max<std::size_t>(1, row * one.size() / rows);
    if (step == last) continue;
    last = step;
    const double a = one[step - 1];
    const double b = parallel[step - 1];
    std::printf("%8zu  %12.6f  %12.6f  %12.1e\n", step, a, b, std::abs(a - b) / std::abs(a));
  }

  constexpr std::size_t width = 64;
  constexpr int height = 12;
  const std::vector<double> a = smoothed(one, width);
  const std::vector<double> b = smoothed(parallel, width);
  const auto [low_a, high_a] = std::minmax_element(a.begin(), a.end());
  const auto [low_b, high_b] = std::minmax_element(b.begin(), b.end());
  const double low = std::min(*low_a, *low_b);
  const double high = std::max(*high_a, *high_b);
  if (!(low < high)) return;
  const auto line_of = [&](double loss) {
    return static_cast<int>(std::lround((high - loss) / (high - low) * (height - 1)));
  };
  std::printf("\n");
  for (int line = 0; line < height; ++line) {
    std::string dots;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const bool is_a = line_of(a[i]) == line;
      const bool is_b = line_of(b[i]) == line;
      dots += is_a && is_b ? '*' : is_a ? 'o' : is_b ? 'x' : ' ';
    }
    std::printf("%8.3f |%s\n", high - (high - low) * line / (height - 1), dots.c_str());
  }
  std::printf("%8s +%s\n", "", std::string(a.size(), '-').c_str());
  std::printf("%8s  1%*zu\n", "step", static_cast<int>(a.size()) - 1, one.size());
  std::printf("%8s  o one device   x %s   * both\n", "", heading_of_ranks(options.ranks).c_str());
}

void print_held_out(const Options& options, const Corpus& corpus, const Result& result) {
  const double unigram = corpus.unigram_loss();
  std::printf("\nHeld-out loss (%zu characters of %lld words, in nats a character):\n", corpus.held_out.size(),
              static_cast<long long>(corpus.held_out.words()));
  const auto line = [&](const std::string& what, double loss) {
    std::printf("  %-28s  %8.4f  %+6.1f %%\n", what.c_str(), loss, 100 * (loss / unigram - 1));
  };
  line("uniform", corpus.uniform_loss());
  line("unigram", unigram);
  line("the model, one device", result.one_device.held_out_loss);
  line("the model, " + heading_of_ranks(options.ranks), result.parallel.held_out_loss);
}

}  // namespace

Progress::Progress(std::int64_t steps, int ranks)
    : steps_(steps), ranks_(ranks), terminal_(isatty(STDOUT_FILENO) != 0) {}

void Progress::step(double one_device_loss, double parallel_loss) {
  ++done_;
  const auto now = std::chrono::steady_clock::now();
  const bool due = terminal_ ? now - drawn_ >= std::chrono::milliseconds(100) : done_ * 10 >= next_line_ * steps_;
  if (!due && done_ != steps_) return;
  drawn_ = now;
  next_line_ = done_ * 10 / steps_ + 1;
  draw(one_device_loss, parallel_loss);
}

void Progress::draw(double one_device_loss, double parallel_loss) const {
  if (terminal_) {
    constexpr std::int64_t width = 24;
    const std::int64_t full = done_ * width / steps_;
    const double elapsed = std::chrono::duration<double>(drawn_ - start_).count();
    const double left = elapsed / static_cast<double>(done_) * static_cast<double>(steps_ - done_);
    std::printf("\r[%s%s] %lld/%lld  loss %.3f | %.3f  %3.0f s left ",
                std::string(static_cast<std::size_t>(full), '#').c_str(),
                std::string(static_cast<std::size_t>(width - full), '.').c_str(), static_cast<long long>(done_),
                static_cast<long long>(steps_), one_device_loss, parallel_loss, left);
    if (done_ == steps_) std::printf("\n");
  } else {
    std::printf("step %lld of %lld: loss %.4f on one device, %.4f on %s\n", static_cast<long long>(done_),
                static_cast<long long>(steps_), one_device_loss, parallel_loss, heading_of_ranks(ranks_).c_str());
  }
  std::fflush(stdout);
}

std::vector<double> smoothed(const std::vector<double>& losses, std::size_t points) {
  points = std::min(points, losses.size());
  std::vector<double> means;
  for (std::size_t i = 0; i < points; ++i) {
    const std::size_t from = i * losses.size() / points;
    const std::size_t to = (i + 1) * losses.size() / points;
    double sum = 0;
    for (std::size_t k = from; k < to; ++k) sum += losses[k];
    means.push_back(sum / static_cast<double>(to - from));
  }
  return means;
}

double largest_relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = a[i] == b[i] ? 0 : std::abs(a[i] - b[i]) / std::abs(a[i]);
    if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

void print_introduction(const Options& options, const Corpus& corpus) {
  std::printf("%lld words of %s, %lld more held out; %lld tokens\n", static_cast<long long>(corpus.training.words()),
              corpus.source.c_str(), static_cast<long long>(corpus.held_out.words()),
              static_cast<long long>(corpus.vocabulary.size()));
  std::printf("%lld hidden units, %s, batches of %lld; one device, then %s, in turns\n\n",
              static_cast<long long>(options.hidden), options.precision == Precision::single ? "float" : "double",
              static_cast<long long>(batch_size), heading_of_ranks(options.ranks).c_str());
  std::fflush(stdout);
}

bool print_findings(const Options& options, const Corpus& corpus, const Result& result) {
  print_curves(options, result);
  print_held_out(options, corpus, result);
  std::printf("\nInvented words:\n ");
  for (const std::string& word : result.invented) std::printf(" %s", word.c_str());
  std::printf("\n\nCommunication of one step of rank 0:\n%s", result.communication.c_str());
  const double steps = static_cast<double>(options.steps);
  std::printf("\nSteps per second: %.1f on one device, %.1f on %s (%lld parameters)\n",
              steps / result.one_device.seconds, steps / result.parallel.seconds,
              heading_of_ranks(options.ranks).c_str(), static_cast<long long>(result.parameters));

  const double difference = largest_relative_difference(result.one_device.losses, result.parallel.losses);
  const double unigram = corpus.unigram_loss();
  const bool agrees = difference <= largest_difference;
  const bool learned = result.parallel.held_out_loss <= (1 - least_gain) * unigram;
  std::printf("\nagreement: max relative loss difference %.2e over %lld steps on %d ranks\n", difference,
              static_cast<long long>(options.steps), options.ranks);
  std::fflush(stdout);
  if (!agrees) std::fprintf(stderr, "names: failed: the losses differ by more than %.0e\n", largest_difference);
  if (!learned)
    std::fprintf(stderr, "names: failed: the held-out loss %.4f is not %.0f %% below the unigram baseline's %.4f\n",
                 result.parallel.held_out_loss, 100 * least_gain, unigram);
  return agrees && learned;
}

}  // namespace names
