// Times in tests of ranks that are processes, on a machine that others keep busy: there a rank may be late for no fault of the code.
//
// What a test waits for is a condition; that it hangs is found by `hang`, far more than anything takes. Where a time or a rank that
// misses a deadline is what is tested, a rank that got no core looks like a failure: such a finding begins with `late`, and
// `patiently` tries again, with longer deadlines. A real failure is there in every try.
#pragma once

#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace test {

constexpr std::chrono::seconds hang{300};

// The failed check of a forked rank: it ends the rank and is what the test reads.
inline void expect(bool holds, std::string_view what) {
  if (!holds) throw std::runtime_error("expected: " + std::string(what));
}

inline void expect_text(const std::string& text, const std::string& part) {
  expect(text.find(part) != std::string::npos, "'" + part + "' in: " + text);
}

// Late may also be the notice of a death: then the loss of a connection has no cause yet.
constexpr std::string_view late = "maybe late: ";
inline bool maybe_late(const std::string& words) {
  return words.find(late) != std::string::npos || words.find("the connection to rank") != std::string::npos;
}

// How many times as long as in the first try deadlines are that a rank is to miss.
inline int& patience() {
  static int times = 1;
  return times;
}
inline std::chrono::milliseconds missed(std::chrono::milliseconds deadline) { return deadline * patience(); }

// What goes wrong in try_once(), "" if nothing: of the first of five tries in which nobody was maybe late, or of the last.
template <class Try>
std::string patiently(Try try_once) {
  std::string wrong;
  for (int tries = 0; tries < 5; ++tries) {
    wrong = try_once();
    if (!maybe_late(wrong)) break;
    patience() *= 4;
  }
  patience() = 1;
  return wrong;
}

// That it is no longer than `limit` since `start`.
inline void expect_within(std::chrono::milliseconds limit, std::chrono::steady_clock::time_point start,
                          std::string_view what) {
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
  if (took > limit)
    throw std::runtime_error(std::string(late) + std::string(what) + " after " + std::to_string(took.count()) +
                             " ms, not within " + std::to_string(limit.count()));
}

// That a deadline's error ends with "missing: <ranks>"; where it names others too, these may have been late.
inline void expect_missing(const std::string& said, const std::string& ranks) {
  expect_text(said, "missing: rank");
  if (!said.ends_with("missing: " + ranks))
    throw std::runtime_error(std::string(late) + "'missing: " + ranks + "' at the end of: " + said);
}

// Waits for what another process sets, or for given_up(); throws where it does not come.
template <class Ready, class GivenUp>
void wait_until(Ready ready, const char* what, GivenUp given_up) {
  const auto end = std::chrono::steady_clock::now() + hang;
  while (!ready() && !given_up()) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error(std::string("waited in vain: ") + what);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

}  // namespace test
