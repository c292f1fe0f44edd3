// With second.cpp: every header in two units of one program. A function or variable that is not inline is a
// duplicate symbol here, and the link fails.
#include <doctest/doctest.h>

#include <everything.hpp>

#include <string_view>

const char* second_unit();

TEST_CASE("two units that include every header link") {
  CHECK(std::string_view(second_unit()) == shardwise::to_string(shardwise::DType::float32));
}
