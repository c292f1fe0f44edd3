// Messages out of pieces: what each kind of piece looks like, and that an error carries the whole.
#include <cstdint>
#include <limits>
#include <string>

#include <doctest/doctest.h>

#include <shardwise/base/error.hpp>
#include <shardwise/base/text.hpp>

using namespace shardwise;
using detail::Extents;
using detail::text;

TEST_CASE("words, numbers and sizes make one message") {
  const std::string axis = "tp";
  const std::string made = text("axis \"", axis, "\" of ", 4, " ranks, ", Shape<2>{12, 0}, Extents(), " and ", -7);
  CHECK(made == "axis \"tp\" of 4 ranks, [12, 0][] and -7");
}

TEST_CASE("the ends of the whole numbers, booleans and reals") {
  CHECK(std::string(text(std::numeric_limits<std::int64_t>::min())) == "-9223372036854775808");
  CHECK(std::string(text(std::numeric_limits<std::int64_t>::max(), "|", 0, "|", std::size_t{10})) ==
        "9223372036854775807|0|10");
  CHECK(std::string(text(0.5)) == std::to_string(0.5));
  CHECK(std::string(text("")) == "");
}

TEST_CASE("a failed requirement throws the whole message as the type that was asked for") {
  const int n = 3;
  CHECK_THROWS_WITH_AS(
      [&] { SHARDWISE_REQUIRE(n > 3, text("shardwise::test: ", n, " of ", Shape<1>{5}), ShapeError); }(),
      "shardwise::test: 3 of [5]", ShapeError);
  CHECK_THROWS_WITH_AS([&] { SHARDWISE_REQUIRE(n > 3, "shardwise::test: words"); }(), "shardwise::test: words", Error);
  CHECK_NOTHROW([&] { SHARDWISE_REQUIRE(n == 3, text("never built ", n)); }());
}
