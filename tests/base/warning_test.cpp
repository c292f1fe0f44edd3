#include <shardwise/base/warning.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include <unistd.h>

using namespace shardwise;

namespace {

// What `f` writes to standard error.
template <class F>
std::string standard_error_of(F&& f) {
  std::FILE* const file = std::tmpfile();
  REQUIRE(file != nullptr);
  std::fflush(stderr);
  const int saved = dup(2);
  dup2(fileno(file), 2);
  f();
  std::fflush(stderr);
  dup2(saved, 2);
  close(saved);
  std::rewind(file);
  std::string text;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) text += static_cast<char>(c);
  std::fclose(file);
  return text;
}

}  // namespace

TEST_CASE("a handler takes the warnings while it lives, every one of them") {
  std::vector<std::string> texts;
  {
    ScopedWarningHandler handler([&](std::string_view text) { texts.emplace_back(text); });
    static_assert(!std::is_copy_constructible_v<decltype(handler)>);
    static_assert(!std::is_move_constructible_v<decltype(handler)>);
    warn("one");
    warn("one");
    warn(std::string("two"));
  }
  CHECK(texts == std::vector<std::string>{"one", "one", "two"});
  const std::string written = standard_error_of([] { warn("after the handler"); });
  CHECK(written == "shardwise: warning: after the handler\n");
  CHECK(texts.size() == 3);
}

TEST_CASE("handlers nest and the innermost alone is told") {
  std::string outer, inner;
  ScopedWarningHandler a([&](std::string_view text) { outer += text; });
  {
    ScopedWarningHandler b([&](std::string_view text) { inner += text; });
    warn("x");
  }
  warn("y");
  CHECK(inner == "x");
  CHECK(outer == "y");
}

TEST_CASE("a handler that warns tells the next one out, and may throw") {
  std::string outer;
  int inner = 0;
  ScopedWarningHandler a([&](std::string_view text) { outer += text; });
  ScopedWarningHandler b([&](std::string_view text) {
    ++inner;
    warn("passed on: " + std::string(text));
    if (text == "bad") throw std::runtime_error("refused");
  });
  warn("x");
  CHECK_THROWS_AS(warn("bad"), std::runtime_error);
  warn("y");
  CHECK(inner == 3);
  CHECK(outer == "passed on: xpassed on: badpassed on: y");
}

TEST_CASE("without a handler each text is written once per thread") {
  const std::string written = standard_error_of([] {
    warn("first text");
    warn("first text");
    warn("second text");
    std::thread([] {
      warn("first text");
      warn("first text");
    }).join();
  });
  CHECK(written == "shardwise: warning: first text\nshardwise: warning: second text\nshardwise: warning: first text\n");
}

TEST_CASE("a handler hears its own thread alone") {
  int heard = 0;
  ScopedWarningHandler handler([&](std::string_view) { ++heard; });
  const std::string written = standard_error_of([] { std::thread([] { warn("elsewhere"); }).join(); });
  CHECK(heard == 0);
  CHECK(written == "shardwise: warning: elsewhere\n");
}
