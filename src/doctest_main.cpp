// The one unit that compiles doctest itself; `shardwise::doctest` brings `main` with it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
