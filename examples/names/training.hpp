// Trains the model twice, on one device and tensor-parallel, step by step in turns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "corpus.hpp"
#include "options.hpp"

namespace names {

inline constexpr std::int64_t batch_size = 256;

class Progress;

struct Course {
  std::vector<double> losses;  // of the batch, one a step
  double seconds = 0;
  double held_out_loss = 0;
};

struct Result {
  Course one_device;
  Course parallel;
  std::int64_t parameters = 0;
  std::string communication;  // of one step, a table
  std::vector<std::string> invented;
};

Result train(const Options& options, const Corpus& corpus, Progress& progress);

}  // namespace names
