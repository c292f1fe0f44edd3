// redistribute_into between ranks, against the same ranks each copying max(local input, local output) bytes with memcpy.
// Prints as nccl-tests does; --gates prints the figures that have limits. Every result is checked element by element.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <shardwise/core.hpp>

#include "../support.hpp"
#include "options.hpp"
#include "transitions.hpp"

using namespace shardwise;
using bench::Options;
using bench::Run;
using bench::Transition;

namespace {

const Transition& find_transition(const std::string& name) {
  for (const Transition& t : bench::transitions())
    if (name == t.name) return t;
  std::string known;
  for (const Transition& t : bench::transitions()) known += std::string(known.empty() ? "" : ", ") + t.name;
  bench::refuse("there is no transition '" + name + "'; known: " + known);
}

std::size_t find_dtype(const std::string& name) {
  for (std::size_t i = 0; i < bench::dtype_count; ++i)
    if (name == bench::dtype_names[i]) return i;
  bench::refuse("there is no element type '" + name + "' here; known: float, double, bfloat16, int64");
}

Run run_once(const Options& o, const Transition& t, std::size_t dtype, Run run) {
  run.ranks = o.ranks;
  run_ranks(o.ranks, [&](ThreadCommunicator world) {
    if (o.pin) bench::pin_to_core(world.rank());
    t.run[dtype](run, world);
  });
  return run;
}

// What the machine has left, in bytes; a guess of 8 GiB where it does not say.
double free_memory() {
  double kib = 8.0 * 1024 * 1024;
  if (std::FILE* f = std::fopen("/proc/meminfo", "r")) {
    char line[256];
    while (std::fgets(line, sizeof line, f) != nullptr)
      if (std::sscanf(line, "MemAvailable: %lf", &kib) == 1) break;
    std::fclose(f);
  }
  return kib * 1024;
}

struct Line {
  std::string dtype;
  std::string transition;
  Run run;
};

void print_line(const Line& l) {
  const Run& r = l.run;
  const double time = r.wall.subject();
  char shape[48], spread[48];
  std::snprintf(shape, sizeof shape, "%lldx%lld", static_cast<long long>(r.shape[0]),
                static_cast<long long>(r.shape[1]));
  std::snprintf(spread, sizeof spread, "%.2f..%.2f", r.wall.ratio_at(0.25), r.wall.ratio_at(0.75));
  std::printf("%12lld %12s %9s %22s %5s %11.1f %8.2f %8.2f %8.2f %14s %8.2f %6lld\n",
              static_cast<long long>(r.bound_bytes), shape, l.dtype.c_str(), l.transition.c_str(), r.mesh.c_str(),
              time * 1e6, static_cast<double>(r.bound_bytes) / time * 1e-9,
              static_cast<double>(r.received_bytes) / time * 1e-9, r.wall.ratio(), spread, r.processor.ratio(),
              static_cast<long long>(r.wrong));
  std::fflush(stdout);
}

void write_json(const std::string& file, const Options& o, const std::vector<Line>& lines) {
  std::FILE* f = std::fopen(file.c_str(), "w");
  if (f == nullptr) {
    std::fprintf(stderr, "bench_redistribute: cannot write '%s'\n", file.c_str());
    std::exit(1);
  }
  std::fprintf(f, "[\n");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Run& r = lines[i].run;
    std::fprintf(
        f,
        "  {\"backend\": \"%s\", \"ranks\": %d, \"mesh\": \"%s\", \"pinned\": %s, \"rows\": %lld, \"columns\": %lld, "
        "\"dtype\": \"%s\", \"transition\": \"%s\", \"bytes\": %lld, \"received_bytes\": %lld, \"time_s\": %.9g, "
        "\"bound_s\": %.9g, \"ratio\": %.4f, \"ratio_25\": %.4f, \"ratio_75\": %.4f, \"processor_ratio\": %.4f, "
        "\"pairs\": %zu, \"wrong\": %lld}%s\n",
        o.backend.c_str(), r.ranks, r.mesh.c_str(), o.pin ? "true" : "false", static_cast<long long>(r.shape[0]),
        static_cast<long long>(r.shape[1]), lines[i].dtype.c_str(), lines[i].transition.c_str(),
        static_cast<long long>(r.bound_bytes), static_cast<long long>(r.received_bytes), r.wall.subject(),
        r.wall.baseline(), r.wall.ratio(), r.wall.ratio_at(0.25), r.wall.ratio_at(0.75), r.processor.ratio(),
        r.wall.count(), static_cast<long long>(r.wrong), i + 1 == lines.size() ? "" : ",");
  }
  std::fprintf(f, "]\n");
  std::fclose(f);
}

int table(const Options& o) {
  std::vector<const Transition*> chosen;
  for (const std::string& name : o.transitions) chosen.push_back(&find_transition(name));
  if (o.transitions.empty())
    for (const Transition& t : bench::transitions()) chosen.push_back(&t);

  std::printf(
      "# redistribute, %s backend, %d ranks%s; time: median of %d batches of at least 8; ratio: time to that of the\n"
      "# same ranks each copying `size` bytes = max(local input, local output) with memcpy, batches in turns:\n"
      "# median of the pairs, its quartiles, and by processor time; busbw: bytes that a rank receives\n",
      o.backend.c_str(), o.ranks, o.pin ? ", rank r on core r mod cores" : ", not pinned", o.repeat);
  std::printf("#%11s %12s %9s %22s %5s %11s %8s %8s %8s %14s %8s %6s\n", "size", "shape", "type", "transition", "mesh",
              "time", "algbw", "busbw", "ratio", "quartiles", "by cpu", "wrong");
  std::printf("#%11s %12s %9s %22s %5s %11s %8s %8s\n", "(B)", "", "", "", "", "(us)", "(GB/s)", "(GB/s)");
  std::vector<Line> lines;
  std::int64_t wrong = 0;
  for (const std::string& dtype : o.dtypes) {
    const std::size_t d = find_dtype(dtype);
    auto shapes = o.shapes;
    for (const std::string& text : o.sizes)
      for (const std::int64_t bytes : bench::sizes_of(text))
        shapes.push_back(bench::shape_of(bytes, bench::dtype_sizes[d]));
    for (const auto& shape : shapes)
      for (const Transition* t : chosen) {
        const double global =
            static_cast<double>(shape[0]) * static_cast<double>(shape[1]) * static_cast<double>(bench::dtype_sizes[d]);
        const double needed = global * (t->bytes * o.ranks + 3);
        if (needed > 0.8 * free_memory()) {
          std::printf("# %lldx%lld %s %s: left out, it needs %.1f GiB of memory and %.1f are free\n",
                      static_cast<long long>(shape[0]), static_cast<long long>(shape[1]), dtype.c_str(), t->name,
                      needed / (1 << 30), free_memory() / (1 << 30));
          continue;
        }
        Run ask;
        ask.shape = shape;
        ask.repeat = o.repeat;
        lines.push_back({dtype, t->name, run_once(o, *t, d, ask)});
        print_line(lines.back());
        wrong += lines.back().run.wrong;
      }
  }
  if (!o.json.empty()) write_json(o.json, o, lines);
  std::printf("# wrong results: %lld\n", static_cast<long long>(wrong));
  return wrong == 0 ? 0 : 1;
}

struct Gate {
  const char* name;
  const char* transition;
  double limit;
  double at_most;  // seconds a try may take
  double lowest = INFINITY;
  std::int64_t wrong = 0;

  bool over() const { return !(lowest <= limit) || wrong != 0; }
};

// A try that is under its limit settles a gate; the others get up to three, spread over the run: what disturbs one
// does not disturb the next. All within a minute: tries are cut to at least five pairs, late ones left out.
int gates(Options o) {
  o.ranks = 4;
  constexpr double heavy = 5.5, light = 2.0, last_start = 42.0;
  std::vector<Gate> all = {
      {"thread:S0->S1", "S0->S1", 1.2, light},
      {"thread:S1->S0", "S1->S0", 1.2, light},
      {"thread:S0->R", "S0->R", 1.2, heavy},
      {"thread:S1->R", "S1->R", 1.2, heavy},
      {"thread:P->R", "P->R", 1.2, heavy},
      {"thread:P->S0", "P->S0", 0.7, heavy},
      {"thread:P->S1", "P->S1", 0.7, heavy},
      {"thread:(S0,S1)->(S1,S0)@2x2", "(S0,S1)->(S1,S0)", 1.2, light},
      {"thread:BlockCyclic<1,64>->S0", "BlockCyclic<1,64>->S0", 1.5, light},
      {"thread:P->R@4KiB", "P->R", 2.0, light},
  };
  double spent = 0;
  for (int attempt = 0; attempt < 3; ++attempt)
    for (Gate& g : all) {
      if (!g.over() || (attempt > 0 && spent > last_start)) continue;
      spent += bench::seconds([&] {
        Run ask;
        const bool small = std::strstr(g.name, "4KiB") != nullptr;
        ask.shape = small ? std::array<std::int64_t, 2>{32, 32} : std::array<std::int64_t, 2>{4096, 4096};
        ask.against_barrier = small;
        ask.repeat = o.repeat;
        ask.at_most = g.at_most;
        const Run r = run_once(o, find_transition(g.transition), 0, ask);
        g.lowest = std::min(g.lowest, r.wall.ratio());
        g.wrong += r.wrong;
      });
    }
  bool over = false;
  for (const Gate& g : all) {
    std::printf("GATE %s %.3f %.2f %s\n", g.name, g.lowest, g.limit, g.over() ? "over" : "ok");
    if (g.wrong != 0) std::printf("# %s: %lld wrong elements\n", g.name, static_cast<long long>(g.wrong));
    over = over || g.over();
  }
  return over ? 1 : 0;
}

// The call alone: its results are handles, which are let go outside of what is counted (they leak).
int count(const std::string& what) {
  run_ranks(1, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"x">(world, {1});
    const auto x = zeros<float, Shard<0>>(mesh, {4, 4});
    using X = std::remove_const_t<decltype(x)>;
    alignas(X) std::byte result[sizeof(X)];
    const auto repeat = [&](auto&& f) {
      for (int i = 0; i < 20000; ++i) {
        f();
        bench::keep(*result);
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

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  if (!options.count.empty()) return count(options.count);
  return options.gates ? gates(options) : table(options);
}
