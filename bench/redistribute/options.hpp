// The command line of bench_redistribute.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace bench {

struct Options {
  int ranks = 0;  // threads: 4 where none are asked for; processes: as launched
  std::vector<std::array<std::int64_t, 2>> shapes;
  std::vector<std::string> sizes;  // resolved to shapes once the element size is known
  std::vector<std::string> dtypes = {"float"};
  std::vector<std::string> transitions;  // none: all
  std::string backend = "thread";
  std::string against;  // empty: copy where ranks read each other's memory, else exchange
  bool staged = false;
  std::string json;
  std::string count;  // same | none: only a loop, for a counter of instructions
  int repeat = 15;
  bool pin = true;
  bool gates = false;
  double within = 30;  // seconds
};

inline const char* usage() {
  return "bench_redistribute: redistributes against a bound that the same ranks reach, taken in turns\n"
         "  --ranks N           threads (4)\n"
         "  --shape RxC[,...]   global shapes (4096x4096)\n"
         "  --size FROM[:TO[:FACTOR]]  square-like shapes of so many bytes instead, as 4K:1G:16\n"
         "  --dtype T[,...]     float double bfloat16 int64 (float)\n"
         "  --transitions T[,...]  as S0->S1 or (S0,S1)->(S1,S0); all where none is named\n"
         "  --backend B         thread, or gloo or mpi under a launcher: scripts/launch.sh -n 4 bench_redistribute --backend gloo;\n"
         "                      SHARDWISE_SHARED_MEMORY=0: processes send messages within the host, too;\n"
         "                      nccl: a GPU each, launched with --backend nccl, against NCCL's own collective\n"
         "  --against BOUND     copy: a memcpy of max(local input, local output) bytes (where ranks read each other's memory);\n"
         "                      barrier; exchange: the same bytes sent by the network library alone (where they do not);\n"
         "                      collective: the library's own collective, for S0->S1, S1->S0, S0->R and P->R\n"
         "  --staged            inputs lie in the caller's own memory\n"
         "  --repeat N          pairs of batches (15); a batch is at least 8 repetitions\n"
         "  --no-pin            ranks are not kept on cores r mod cores\n"
         "  --json FILE         the lines as JSON, too\n"
         "  --gates             only the gates of this backend: GATE <name> <measured> <limit> ok|over\n"
         "  --within S          seconds after which no gate is tried again (30)\n"
         "  --count same|copy|none  only a loop of redistributes to the same placement, of copied handles, or of nothing: for valgrind\n";
}

[[noreturn]] inline void refuse(const std::string& what) {
  std::fprintf(stderr, "bench_redistribute: %s\n%s", what.c_str(), usage());
  std::exit(2);
}

// Splits at commas outside parentheses and angle brackets; the > of -> closes none.
inline std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  char before = 0;
  for (const char c : text) {
    depth += (c == '(' || c == '<') - (c == ')' || (c == '>' && before != '-'));
    before = c;
    if (c == ',' && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

inline std::int64_t parse_number(const std::string& flag, const std::string& text, std::int64_t least,
                                 std::int64_t most) {
  char* end = nullptr;
  const long long n = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || n < least || n > most)
    refuse(flag + " wants a number from " + std::to_string(least) + " to " + std::to_string(most) + ", not '" + text +
           "'");
  return n;
}

// 4096, 4K, 16M, 1G.
inline std::int64_t parse_bytes(const std::string& text) {
  char* end = nullptr;
  const long long n = std::strtoll(text.c_str(), &end, 10);
  const std::string unit = end;
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (text.empty() || shift < 0 || n < 1 || n > (std::int64_t{1} << 40) >> shift)
    refuse("--size wants bytes as 4096, 4K, 16M or 1G, not '" + text + "'");
  return static_cast<std::int64_t>(n) << shift;
}

// About `bytes` bytes, no dimension longer than twice the other.
inline std::array<std::int64_t, 2> shape_of(std::int64_t bytes, std::int64_t element) {
  const std::int64_t elements = bytes / element > 0 ? bytes / element : 1;
  std::int64_t rows = 1;
  while (rows * rows * 4 <= elements) rows *= 2;
  return {rows, elements / rows};
}

inline std::vector<std::int64_t> sizes_of(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ':')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  if (parts.size() > 3) refuse("--size wants FROM[:TO[:FACTOR]], not '" + text + "'");
  const std::int64_t first = parse_bytes(parts[0]);
  const std::int64_t last = parts.size() > 1 ? parse_bytes(parts[1]) : first;
  const std::int64_t factor = parts.size() > 2 ? parse_number("the factor of --size", parts[2], 2, 1 << 20) : 4;
  std::vector<std::int64_t> sizes;
  for (std::int64_t n = first; n <= last; n *= factor) sizes.push_back(n);
  return sizes;
}

inline Options parse_options(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) refuse(flag + " wants a value");
      return argv[++i];
    };
    if (flag == "--help") {
      std::fputs(usage(), stdout);
      std::exit(0);
    } else if (flag == "--ranks") {
      o.ranks = static_cast<int>(parse_number(flag, value(), 1, 64));
    } else if (flag == "--shape") {
      for (const std::string& text : split_list(value())) {
        const std::size_t x = text.find('x');
        if (x == std::string::npos) refuse("--shape wants ROWSxCOLUMNS, not '" + text + "'");
        o.shapes.push_back({parse_number(flag, text.substr(0, x), 0, std::int64_t{1} << 31),
                            parse_number(flag, text.substr(x + 1), 0, std::int64_t{1} << 31)});
      }
    } else if (flag == "--size") {
      for (const std::string& text : split_list(value())) o.sizes.push_back(text);
    } else if (flag == "--dtype") {
      o.dtypes = split_list(value());
    } else if (flag == "--transitions") {
      o.transitions = split_list(value());
    } else if (flag == "--backend") {
      o.backend = value();
      if (o.backend != "thread" && o.backend != "gloo" && o.backend != "mpi" && o.backend != "nccl")
        refuse("--backend wants thread, gloo, mpi or nccl, not '" + o.backend + "'");
    } else if (flag == "--against") {
      o.against = value();
      if (o.against != "copy" && o.against != "barrier" && o.against != "exchange" && o.against != "collective")
        refuse("--against wants copy, barrier, exchange or collective, not '" + o.against + "'");
    } else if (flag == "--staged") {
      o.staged = true;
    } else if (flag == "--repeat") {
      o.repeat = static_cast<int>(parse_number(flag, value(), 1, 100000));
    } else if (flag == "--json") {
      o.json = value();
    } else if (flag == "--no-pin") {
      o.pin = false;
    } else if (flag == "--gates") {
      o.gates = true;
    } else if (flag == "--within") {
      o.within = static_cast<double>(parse_number(flag, value(), 0, 3600));
    } else if (flag == "--count") {
      o.count = value();
      if (o.count != "same" && o.count != "copy" && o.count != "none")
        refuse("--count wants same, copy or none, not '" + o.count + "'");
    } else {
      refuse("unknown flag '" + flag + "'");
    }
  }
  if (o.backend != "thread" && o.ranks != 0)
    refuse("--ranks is for threads; the launcher says how many processes there are: scripts/launch.sh -n " +
           std::to_string(o.ranks));
  if (o.backend == "thread" && (o.against == "exchange" || o.against == "collective"))
    refuse("--against " + o.against + " is for processes, --backend gloo or mpi: threads have no network library");
  if (o.backend == "nccl" && (o.staged || (!o.against.empty() && o.against != "collective")))
    refuse("GPUs run against NCCL's own collective alone, on memory of the library: leave --against and --staged out");
  if (o.backend == "thread" && o.ranks == 0) o.ranks = 4;
  if (o.shapes.empty() && o.sizes.empty()) o.shapes.push_back({4096, 4096});
  return o;
}

}  // namespace bench
