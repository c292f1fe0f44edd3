// What tests of processes hold for late: it is tried again, with longer deadlines; whatever else is wrong is not.
#include <doctest/doctest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "process/patience.hpp"

using namespace std::chrono_literals;

namespace {

template <class F>
std::string wrong_in(F f) {
  try {
    f();
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "";
}

// What patiently() gives, and the deadlines that its tries had, where they ended like this.
std::string tried(const std::vector<std::string>& ends, std::vector<long>& deadlines) {
  return test::patiently([&] {
    deadlines.push_back(static_cast<long>(test::missed(10ms).count()));
    return ends.at(deadlines.size() - 1);
  });
}

}  // namespace

TEST_CASE(
    "what may be late is tried again with longer deadlines, what is wrong is not, and lateness that stays is told") {
  const std::string slow =
      wrong_in([] { test::expect_within(5ms, std::chrono::steady_clock::now() - 1s, "an answer"); });
  CHECK(slow.find("an answer after 1") != std::string::npos);
  CHECK(wrong_in([] { test::expect_within(1min, std::chrono::steady_clock::now(), "an answer"); }) == "");
  const std::string two = wrong_in([] { test::expect_missing("deadline passed; missing: ranks 1, 2", "rank 2"); });
  CHECK(wrong_in([] { test::expect_missing("deadline passed; missing: rank 2", "rank 2"); }) == "");
  const std::string nobody = wrong_in([] { test::expect_missing("deadline passed", "rank 2"); });
  CHECK_FALSE(test::maybe_late(nobody));

  std::vector<long> deadlines;
  CHECK(tried({slow, "rank 0: " + two, ""}, deadlines) == "");
  CHECK(deadlines == std::vector<long>{10, 40, 160});
  deadlines.clear();
  CHECK(tried({slow, nobody}, deadlines) == nobody);
  CHECK(deadlines == std::vector<long>{10, 40});
  deadlines.clear();
  CHECK(tried({two, two, two, two, two}, deadlines) == two);
  CHECK(test::missed(10ms) == 10ms);
}
