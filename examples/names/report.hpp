// What the program says: progress while it trains, then the findings.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "training.hpp"

namespace names {

inline constexpr double largest_difference = 1e-4;     // of the losses, relatively
inline constexpr double least_gain = 0.15;             // on the unigram baseline's held-out loss

// A bar that is drawn over itself where the output is a terminal, otherwise some ten lines.
class Progress {
 public:
  Progress(std::int64_t steps, int ranks);
  void step(double one_device_loss, double parallel_loss);

 private:
  void draw(double one_device_loss, double parallel_loss) const;

  std::int64_t steps_;
  int ranks_;
  bool terminal_;
  std::int64_t done_ = 0;
  std::int64_t next_line_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
};

// Means over as many equal parts of the curve as there are points asked for: single batches are noisy.
std::vector<double> smoothed(const std::vector<double>& losses, std::size_t points);

// The largest |a - b| / |a| over the steps; infinite where a loss is no number.
double largest_relative_difference(const std::vector<double>& a, const std::vector<double>& b);

void print_introduction(const Options& options, const Corpus& corpus);
// True where the run shows what it is to show; says what it does not.
bool print_findings(const Options& options, const Corpus& corpus, const Result& result);

}  // namespace names
