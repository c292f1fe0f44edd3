// redistribute_into between ranks, threads or processes, against a bound that the same ranks reach: each copying
// max(local input, local output) bytes with memcpy, or the same bytes over the network library. Prints as nccl-tests does;
// --gates prints the figures that have limits. Every result is checked element by element.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "gates.hpp"
#include "options.hpp"
#include "ranks.hpp"
#include "run.hpp"

using bench::Against;
using bench::Options;
using bench::Ranks;
using bench::Run;

namespace {

std::size_t find_dtype(const std::string& name) {
  for (std::size_t i = 0; i < bench::dtype_count; ++i)
    if (name == bench::dtype_names[i]) return i;
  bench::refuse("there is no element type '" + name + "' here; known: float, double, bfloat16, int64");
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

[[gnu::format(printf, 2, 3)]] void print(const Ranks& ranks, const char* format, ...) {
  if (!ranks.prints()) return;
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::fflush(stdout);
}

void print_line(const Ranks& ranks, const Line& l) {
  const Run& r = l.run;
  const double time = r.wall.subject();
  char shape[48], spread[48];
  std::snprintf(shape, sizeof shape, "%lldx%lld", static_cast<long long>(r.shape[0]),
                static_cast<long long>(r.shape[1]));
  std::snprintf(spread, sizeof spread, "%.2f..%.2f", r.wall.ratio_at(0.25), r.wall.ratio_at(0.75));
  print(ranks, "%12lld %12s %9s %22s %5s %11.1f %8.2f %8.2f %8.2f %14s %8.2f %6lld\n",
        static_cast<long long>(r.bound_bytes), shape, l.dtype.c_str(), l.transition.c_str(), r.mesh.c_str(), time * 1e6,
        static_cast<double>(r.bound_bytes) / time * 1e-9, static_cast<double>(r.received_bytes) / time * 1e-9,
        r.wall.ratio(), spread, r.processor.ratio(), static_cast<long long>(r.wrong));
}

void write_json(const std::string& file, const Options& o, const std::string& kind, const std::vector<Line>& lines) {
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
        "\"dtype\": \"%s\", \"transition\": \"%s\", \"against\": \"%s\", \"bytes\": %lld, \"received_bytes\": %lld, \"time_s\": %.9g, "
        "\"bound_s\": %.9g, \"ratio\": %.4f, \"ratio_25\": %.4f, \"ratio_75\": %.4f, \"processor_ratio\": %.4f, "
        "\"pairs\": %zu, \"wrong\": %lld}%s\n",
        kind.c_str(), r.ranks, r.mesh.c_str(), o.pin ? "true" : "false", static_cast<long long>(r.shape[0]),
        static_cast<long long>(r.shape[1]), lines[i].dtype.c_str(), lines[i].transition.c_str(), r.bound.c_str(),
        static_cast<long long>(r.bound_bytes), static_cast<long long>(r.received_bytes), r.wall.subject(),
        r.wall.baseline(), r.wall.ratio(), r.wall.ratio_at(0.25), r.wall.ratio_at(0.75), r.processor.ratio(),
        r.wall.count(), static_cast<long long>(r.wrong), i + 1 == lines.size() ? "" : ",");
  }
  std::fprintf(f, "]\n");
  std::fclose(f);
}

Against bound_of(const Options& o, const Ranks& ranks) {
  for (int i = 0; i < 4; ++i)
    if (o.against == bench::against_names[i]) return static_cast<Against>(i);
  const std::string kind = ranks.kind();
  if (kind == "nccl") return Against::collective;
  return kind.ends_with("-tcp") || kind.ends_with("-net") ? Against::exchange : Against::copy;
}

const char* text_of(Against against) {
  switch (against) {
    case Against::copy: return "the same ranks each copying `size` bytes = max(local input, local output) with memcpy";
    case Against::barrier: return "a barrier of the same ranks";
    case Against::exchange: return "the network library exchanging as many bytes as a rank receives, nothing else";
    case Against::collective: return "the network library's own collective";
  }
  return "";
}

int table(const Options& o, const Ranks& ranks) {
  const std::vector<bench::TransitionName> all = ranks.transitions();
  std::vector<std::size_t> chosen;
  for (const std::string& name : o.transitions) chosen.push_back(bench::find_transition(ranks, name));
  if (o.transitions.empty())
    for (std::size_t t = 0; t < all.size(); ++t) chosen.push_back(t);
  const Against against = bound_of(o, ranks);
  const bool staged = o.staged;

  print(
      ranks,
      "# redistribute%s, %s, %d ranks%s; time: median of %d batches of at least 8; ratio: time to that of\n"
      "# %s,\n"
      "# batches in turns: median of the pairs, its quartiles, and by processor time; busbw: bytes that a rank receives\n",
      staged ? " of memory of the caller's own" : "", ranks.kind().c_str(), ranks.size(),
      ranks.kind() == "nccl" ? ""
      : o.pin                ? ", rank r on core r mod cores"
                             : ", not pinned",
      o.repeat, text_of(against));
  if (ranks.kind() == "nccl")
    print(ranks,
          "# time: the device's; by cpu: the host's time of a call that waits for nothing, to that of NCCL's call\n");
  print(ranks, "#%11s %12s %9s %22s %5s %11s %8s %8s %8s %14s %8s %6s\n", "size", "shape", "type", "transition", "mesh",
        "time", "algbw", "busbw", "ratio", "quartiles", "by cpu", "wrong");
  print(ranks, "#%11s %12s %9s %22s %5s %11s %8s %8s\n", "(B)", "", "", "", "", "(us)", "(GB/s)", "(GB/s)");
  std::vector<Line> lines;
  std::int64_t wrong = 0;
  for (const std::string& dtype : o.dtypes) {
    const std::size_t d = find_dtype(dtype);
    auto shapes = o.shapes;
    for (const std::string& text : o.sizes)
      for (const std::int64_t bytes : bench::sizes_of(text))
        shapes.push_back(bench::shape_of(bytes, bench::dtype_sizes[d]));
    for (const auto& shape : shapes)
      for (const std::size_t t : chosen) {
        const double global =
            static_cast<double>(shape[0]) * static_cast<double>(shape[1]) * static_cast<double>(bench::dtype_sizes[d]);
        const double needed = global * (all[t].bytes * ranks.size() + 3), free = free_memory();
        if (ranks.agreed(needed > 0.8 * free) != 0) {
          print(ranks, "# %lldx%lld %s %s: left out, it needs %.1f GiB of memory and %.1f are free\n",
                static_cast<long long>(shape[0]), static_cast<long long>(shape[1]), dtype.c_str(), all[t].name,
                needed / (1 << 30), free / (1 << 30));
          continue;
        }
        Run ask;
        ask.shape = shape;
        ask.repeat = o.repeat;
        ask.against = against;
        ask.staged = staged;
        lines.push_back({dtype, all[t].name, ranks.run(t, d, ask)});
        print_line(ranks, lines.back());
        wrong += lines.back().run.wrong;
      }
  }
  if (!o.json.empty() && ranks.prints()) write_json(o.json, o, ranks.kind(), lines);
  print(ranks, "# wrong results: %lld\n", static_cast<long long>(wrong));
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = bench::parse_options(argc, argv);
  if (!options.count.empty()) return bench::count_same_placement(options.count);
  const auto ranks = options.backend == "thread" ? bench::threads(options)
                     : options.backend == "nccl" ? bench::gpus()
                                                 : bench::processes(options);
  return options.gates ? bench::gates(options, *ranks) : table(options, *ranks);
}
