// A test program of which one case fails on rank 2 alone, for check_launchers.py.
#include <shardwise/testing/doctest.hpp>

SHARDWISE_TEST_RANKS("four ranks meet", 4) {
  const int mine = world.rank() + 1;
  int sum = 0;
  world.all_reduce(std::span<const int>(&mine, 1), std::span<int>(&sum, 1), shardwise::ReduceOp::sum);
  CHECK(sum == 10);
}

SHARDWISE_TEST_RANKS("one of four fails", 4) { CHECK(world.rank() != 2); }
