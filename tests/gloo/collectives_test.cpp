// Collectives over Gloo's connections between processes, against what each rank knows the others to have.
#include <doctest/doctest.h>

#include <shardwise/comm/communicator.hpp>

#include "comm/conformance.hpp"
#include "gloo/message_ranks.hpp"

using namespace shardwise;
using namespace test;

static_assert(Communicator<MessageCommunicator>);

TEST_CASE("messages do what every communicator does") {
  for (const int n : {1, 2, 3, 4, 5, 7}) {
    CAPTURE(n);
    CHECK(run_gloo(n, [](const MessageCommunicator& c) { conforms(c); }) == "");
  }
}
