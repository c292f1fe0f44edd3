// The transitions between ranks that are processes, under a launcher.
#include <cstdlib>
#include <string_view>

#include <shardwise/backends/any.hpp>

#include "transitions.hpp"
#if defined(SHARDWISE_HAS_GLOO)
#include "gloo_bounds.hpp"
#endif
#if defined(SHARDWISE_HAS_MPI)
#include "mpi_bounds.hpp"
#endif

namespace bench {

namespace {

[[noreturn]] void stop(const std::string& what) {
  std::fprintf(stderr, "bench_redistribute: %s\n", what.c_str());
  std::exit(2);
}

class Processes final : public Ranks {
 public:
  explicit Processes(const Options& options) : network_(options.backend), world_(joined(options)) {
    if (options.pin) pin_to_core(world_.rank());
  }

  int size() const override { return world_.size(); }
  std::string kind() const override {
    return network_ + (world_.direct() ? "-shm" : network_ == "mpi" ? "-net" : "-tcp");
  }
  bool prints() const override { return world_.rank() == 0; }
  std::int64_t agreed(std::int64_t of_rank_0) const override { return bench::agreed(world_, of_rank_0); }
  std::vector<TransitionName> transitions() const override { return names_of_transitions<AnyCommunicator>(); }

  Run run(std::size_t transition, std::size_t dtype, Run run) const override {
    const auto& chosen = transitions_of<AnyCommunicator>()[transition];
    if (chosen.run[dtype] == nullptr) stop("--dtype is float or double between processes");
    run.ranks = size();
    run.make_bound = [this](Against against, const Work& work) { return bound(against, work); };
    chosen.run[dtype](run, world_, chosen.name);
    run.wrong = agreed(run.wrong);
    return run;
  }

 private:
  static AnyCommunicator joined(const Options& options) {
    const std::string how =
        "scripts/launch.sh -n 4 --backend " + options.backend + " bench_redistribute --backend " + options.backend;
#if !defined(SHARDWISE_HAS_MPI)
    if (options.backend == "mpi")
      stop("this build has no MPI: configure with SHARDWISE_MPI=ON (Debian: libopenmpi-dev or libmpich-dev)");
#endif
    const char* const launched_with = std::getenv("SHARDWISE_BACKEND");
    if (launched_with != nullptr && options.backend != launched_with)
      stop("--backend " + options.backend + " was launched with SHARDWISE_BACKEND=" + launched_with + "; run " + how);
    AnyCommunicator world = from_env();
    if (world.size() == 1)
      stop("--backend " + options.backend + " wants a launcher and two ranks at least; run " + how);
    return world;
  }

  Bound bound(Against against, const Work& work) const {
#if defined(SHARDWISE_HAS_MPI)
    if (network_ == "mpi") return mpi_bound(world_, against, work);
#endif
#if defined(SHARDWISE_HAS_GLOO)
    return gloo_bound(world_, against, work);
#else
    static_cast<void>(against), static_cast<void>(work);
    stop("this build has no Gloo to compare with (Debian: libgloo-dev)");
#endif
  }

  std::string network_;
  AnyCommunicator world_;
};

}  // namespace

std::unique_ptr<Ranks> processes(const Options& options) { return std::make_unique<Processes>(options); }

}  // namespace bench
