// For cases about ranks that read each other's memory: ranks that send messages are left out, and the case says so.
#pragma once

#include <cstdio>

#include <doctest/doctest.h>

namespace test {

template <class Communicator>
bool reads_peers(const Communicator& world) {
  if constexpr (requires { world.direct(); }) {
    if (world.direct()) return true;
    if (world.rank() == 0)
      std::printf("SKIPPED: '%s' is about ranks that read each other's memory\n",
                  doctest::getContextOptions()->currentTest->m_name);
    return false;
  }
  return true;
}

}  // namespace test
