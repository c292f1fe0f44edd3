#include "gates.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "../support.hpp"
#include "run.hpp"

namespace bench {

namespace {

constexpr std::int64_t large = 4096, small = 32;  // floats: 64 MiB and 4 KiB
constexpr double heavy = 7, light = 3;
constexpr double bandwidth = 1 / 0.97;  // of times: 0.97 of NCCL's bus bandwidth

struct Gate {
  const char* name;  // kind:transition
  const char* transition;
  double limit;
  std::int64_t side;  // of the matrix
  double at_most;  // seconds a try may take
  Against against = Against::copy;
  bool staged = false;
  bool host =
      false;  // measured in microseconds: how much longer the host takes for the call than for the library's own

  double lowest = INFINITY;
  std::int64_t wrong = 0;
  std::string bound{}, note{};

  bool over() const { return !(lowest <= limit) || wrong != 0; }
};

std::vector<Gate> gates_of(const std::string& kind) {
  using enum Against;
  const std::vector<Gate> all = {
      {"thread:S0->S1", "S0->S1", 1.2, large, light},
      {"thread:S1->S0", "S1->S0", 1.2, large, light},
      {"thread:S0->R", "S0->R", 1.2, large, heavy},
      {"thread:S1->R", "S1->R", 1.2, large, heavy},
      {"thread:P->R", "P->R", 1.2, large, heavy},
      {"thread:P->S0", "P->S0", 0.7, large, heavy},
      {"thread:P->S1", "P->S1", 0.7, large, heavy},
      {"thread:(S0,S1)->(S1,S0)@2x2", "(S0,S1)->(S1,S0)", 1.2, large, light},
      {"thread:BlockCyclic<1,64>->S0", "BlockCyclic<1,64>->S0", 1.5, large, light},
      {"thread:P->R@4KiB", "P->R", 2.0, small, light, barrier},
      {"gloo-shm:S0->S1@4096", "S0->S1", 1.3, large, light},
      {"gloo-shm:S0->R@4096", "S0->R", 1.3, large, heavy},
      {"gloo-shm:P->S0@4096", "P->S0", 0.8, large, heavy},
      {"gloo-shm:P->R@4096", "P->R", 1.6, large, heavy},
      {"gloo-shm-staged:S0->S1@4096", "S0->S1", 2.2, large, light, copy, true},
      {"gloo-shm:P->R@4KiB", "P->R", 0.02, small, light, collective},
      {"gloo-tcp:S0->S1@4096", "S0->S1", 1.3, large, heavy, exchange},
      {"gloo-tcp:P->R@4KiB", "P->R", 0.1, small, light, collective},
      {"gloo-tcp:S0->R@4KiB", "S0->R", 0.1, small, light, collective},
      {"mpi-shm:S0->S1@4096", "S0->S1", 1.3, large, light},
      {"mpi-shm:P->R@4096", "P->R", 1.6, large, heavy},
      {"mpi-net:S0->S1@4096", "S0->S1", 1.15, large, heavy, exchange},
      {"nccl:S0->S1@4096", "S0->S1", bandwidth, large, light, collective},
      {"nccl:S1->S0@4096", "S1->S0", bandwidth, large, light, collective},
      {"nccl:S0->R@4096", "S0->R", bandwidth, large, light, collective},
      {"nccl:P->R@4096", "P->R", bandwidth, large, light, collective},
      {"nccl:P->S0@4096", "P->S0", bandwidth, large, light, collective},
      {"nccl-host-us:all_reduce@4KiB", "all_reduce", 1.0, small, light, collective, false, true},
      {"nccl-host-us:P->R@4KiB", "P->R", 1.0, small, light, collective, false, true},
      {"nccl-host-us:S0->R@4KiB", "S0->R", 1.0, small, light, collective, false, true},
  };
  std::vector<Gate> chosen;
  for (const Gate& g : all) {
    const std::string name = g.name;
    if (name.starts_with(kind + ":") || name.starts_with(kind + "-staged:") || name.starts_with(kind + "-host-us:"))
      chosen.push_back(g);
  }
  return chosen;
}

}  // namespace

std::size_t find_transition(const Ranks& ranks, const std::string& name) {
  std::string known;
  const std::vector<TransitionName> all = ranks.transitions();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (name == all[i].name) return i;
    known += std::string(known.empty() ? "" : ", ") + all[i].name;
  }
  refuse("there is no transition '" + name + "'; known: " + known);
}

// A try that is under its limit settles a gate; the others get up to three, spread over the run: what disturbs one
// does not disturb the next. A try ends when over half of its pairs are under the limit: its median then is, whatever the others come to.
// What is over has all its pairs, as long as there is time (--within). Rank 0 decides for all.
int gates(const Options& o, const Ranks& ranks) {
  std::vector<Gate> all = gates_of(ranks.kind());
  if (ranks.kind() == "nccl")
    std::erase_if(all, [&](const Gate& g) {
      if (ranks.size() > 1 || g.transition == std::string_view("all_reduce")) return false;
      std::printf("# %s: skipped, it needs two GPUs, and there is one rank\n", g.name);
      return true;
    });
  else if (ranks.size() != 4)
    refuse("--gates is for 4 ranks, not " + std::to_string(ranks.size()));
  double spent = 0;
  for (int attempt = 0; attempt < 3; ++attempt)
    for (Gate& g : all) {
      if (ranks.agreed(!g.over() || (attempt > 0 && spent > o.within)) != 0) continue;
      spent += seconds([&] {
        Run ask;
        ask.shape = {g.side, g.side};
        ask.against = g.against;
        ask.staged = g.staged;
        ask.repeat = o.repeat;
        ask.at_most = g.at_most;
        if (!g.host) ask.settled = g.limit;
        const Run r = ranks.run(find_transition(ranks, g.transition), 0, ask);
        g.wrong += r.wrong;
        const double measured = g.host ? r.processor.extra() * 1e6 : r.wall.ratio();
        if (!(measured < g.lowest)) return;
        g.lowest = measured;
        g.bound = r.bound;
        g.note = r.note;
      });
    }
  bool over = false;
  for (const Gate& g : all) {
    over = over || g.over();
    if (!ranks.prints()) continue;
    std::printf("GATE %s %.3f %.2f %s\n", g.name, g.lowest, g.limit, g.over() ? "over" : "ok");
    if (g.wrong != 0) std::printf("# %s: %lld wrong elements\n", g.name, static_cast<long long>(g.wrong));
    if (!g.note.empty()) std::printf("# %s: against %s (%s)\n", g.name, g.bound.c_str(), g.note.c_str());
  }
  return ranks.prints() && over ? 1 : 0;
}

}  // namespace bench
