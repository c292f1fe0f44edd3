// A user's test: `main` comes with the library.
#include <doctest/doctest.h>

#include <shardwise/base/name.hpp>

TEST_CASE("a user's test") { CHECK(shardwise::Name("tp").size() == 2); }
