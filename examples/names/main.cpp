// names: a language model of characters, trained on one device and tensor-parallel, side by side.
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>

#include "corpus.hpp"
#include "options.hpp"
#include "picture.hpp"
#include "ranks.hpp"
#include "report.hpp"
#include "training.hpp"

namespace {

// A launched process takes part in the world that it finds; rank 0 alone speaks.
int take_part(const names::Options& options) {
  const names::Corpus corpus = names::read_corpus(options.text);
  names::Progress silent(options.steps, options.ranks);
  names::train(options, corpus, silent);
  return 0;
}

int run(const names::Options& options) {
  std::ofstream plot;
  if (!options.plot.empty()) {
    // Opened first: better to hear of a folder that does not exist before the training than after it.
    plot.open(options.plot);
    if (!plot) throw std::runtime_error(options.plot + ": cannot be opened for writing (--plot)");
  }
  const names::Corpus corpus = names::read_corpus(options.text);
  names::print_introduction(options, corpus);
  names::Progress progress(options.steps, options.ranks);
  const names::Result result = names::train(options, corpus, progress);
  if (plot.is_open() && !(plot << names::loss_curves_as_svg(options, corpus, result) << std::flush))
    throw std::runtime_error(options.plot + ": cannot be written");
  return names::print_findings(options, corpus, result) ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const names::Options options = names::parse_options({arguments + 1, arguments + count});
    if (options.help) {
      std::fputs(names::help_text().c_str(), stdout);
      return 0;
    }
    names::Options here = options;
    const auto world = names::launched_world();
    if (world) {
      here.ranks = world->size();
      if (world->rank() != 0) return take_part(here);
    }
    return run(here);
  } catch (const names::UsageError& error) {
    std::fprintf(stderr, "names: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "names: %s\n", error.what());
    return 1;
  }
}
