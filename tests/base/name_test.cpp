#include <doctest/doctest.h>

#include <shardwise/base/name.hpp>

using namespace shardwise;

TEST_CASE("a name keeps its characters and compares by them") {
  const Name name = "net1";
  CHECK(name.view() == "net1");
  CHECK(name.size() == 4);
  CHECK(name == Name("net1"));
  CHECK_FALSE(name == Name("net2"));
  CHECK(Name().empty());
}

TEST_CASE("a name holds 63 characters and is cut there when it comes from a view") {
  const Name longest = "123456789012345678901234567890123456789012345678901234567890123";
  CHECK(longest.size() == Name::capacity);
  CHECK(Name(std::string_view("123456789012345678901234567890123456789012345678901234567890123xyz")) == longest);
}

TEST_CASE("names of flattened axes are joined with an underscore") {
  CHECK(join_names("dp", "tp").view() == "dp_tp");
  CHECK(join_names("", "tp").view() == "tp");
}
