// The transitions between ranks that are threads of this process.
#include "transitions.hpp"

namespace bench {

namespace {

class Threads final : public Ranks {
 public:
  explicit Threads(const Options& options) : ranks_(options.ranks), pin_(options.pin) {}

  int size() const override { return ranks_; }
  std::string kind() const override { return "thread"; }
  bool prints() const override { return true; }
  std::int64_t agreed(std::int64_t value) const override { return value; }
  std::vector<TransitionName> transitions() const override { return names_of_transitions<ThreadCommunicator>(); }

  Run run(std::size_t transition, std::size_t dtype, Run run) const override {
    const auto& chosen = transitions_of<ThreadCommunicator>()[transition];
    run.ranks = ranks_;
    run_ranks(ranks_, [&](ThreadCommunicator world) {
      if (pin_) pin_to_core(world.rank());
      chosen.run[dtype](run, world, chosen.name);
    });
    return run;
  }

 private:
  int ranks_;
  bool pin_;
};

}  // namespace

std::unique_ptr<Ranks> threads(const Options& options) { return std::make_unique<Threads>(options); }

// The call alone: its results are handles, which are let go outside of what is counted (they leak).
int count_same_placement(const std::string& what) {
  run_ranks(1, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"x">(world, {1});
    const auto x = zeros<float, Shard<0>>(mesh, {4, 4});
    using X = std::remove_const_t<decltype(x)>;
    alignas(X) std::byte result[sizeof(X)];
    const auto repeat = [&](auto&& f) {
      for (int i = 0; i < 20000; ++i) {
        f();
        keep(*result);
      }
    };
    if (what == "same")
      repeat([&] { new (result) X(redistribute<Shard<0>>(x)); });
    else if (what == "copy")
      repeat([&] { new (result) X(x); });
    else
      repeat([] {});
  });
  return 0;
}

}  // namespace bench
