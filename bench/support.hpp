// What the benchmarks share: pairs of timings that alternate, and one line of a table for each figure. A figure is the
// ratio of two times of one run; absolute times stand beside it only to be read.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace bench {

// The calling thread stays on one core. Without it the scheduler's moves are most of the spread of a short run.
inline void pin_to_core(int core) {
#if defined(__linux__)
  const unsigned cores = std::thread::hardware_concurrency();
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(core) % (cores == 0 ? 1 : cores), &set);
  sched_setaffinity(0, sizeof set, &set);
#else
  static_cast<void>(core);
#endif
}

template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double quantile(std::vector<double> v, double q) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v[static_cast<std::size_t>(q * static_cast<double>(v.size() - 1) + 0.5)];
}

// Times of a subject and of what it is compared with, taken in turns.
class Pairs {
 public:
  void add(double subject, double baseline) {
    subject_.push_back(subject);
    baseline_.push_back(baseline);
    ratio_.push_back(subject / baseline);
    extra_.push_back(subject - baseline);
  }
  double ratio() const { return quantile(ratio_, 0.5); }
  double ratio_at(double q) const { return quantile(ratio_, q); }
  double subject() const { return quantile(subject_, 0.5); }
  double baseline() const { return quantile(baseline_, 0.5); }
  double extra() const { return quantile(extra_, 0.5); }
  std::size_t count() const { return ratio_.size(); }
  int under(double limit) const {
    return static_cast<int>(std::count_if(ratio_.begin(), ratio_.end(), [&](double r) { return r <= limit; }));
  }

 private:
  std::vector<double> subject_, baseline_, ratio_, extra_;
};

// Keeps the compiler from dropping a result.
template <class T>
inline void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

inline void print_row(const char* what, const char* figure, const char* spread, const char* limit, const char* times) {
  std::printf("%-58s %10s  %-16s %-8s %s\n", what, figure, spread, limit, times);
  std::fflush(stdout);
}

inline void print_heading(const char* title) {
  std::printf("\n%s\n", title);
  print_row("what", "figure", "quartiles", "limit", "subject / baseline");
}

// One figure: the median of the paired ratios, its quartiles, the limit (0: none), both times in `unit` seconds.
inline void print_ratio(const char* what, const Pairs& pairs, double limit, double unit, const char* unit_name) {
  char figure[32], spread[48], bound[32], times[96];
  std::snprintf(figure, sizeof figure, "%.2fx", pairs.ratio());
  std::snprintf(spread, sizeof spread, "%.2f to %.2f", pairs.ratio_at(0.25), pairs.ratio_at(0.75));
  if (limit > 0)
    std::snprintf(bound, sizeof bound, "%.2fx", limit);
  else
    std::snprintf(bound, sizeof bound, "-");
  std::snprintf(times, sizeof times, "%.2f / %.2f %s", pairs.subject() / unit, pairs.baseline() / unit, unit_name);
  print_row(what, figure, spread, bound, times);
}

}  // namespace bench
