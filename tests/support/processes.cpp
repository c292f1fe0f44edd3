// What makes processes the ranks of SHARDWISE_TEST_RANKS, compiled once for all test programs: it is long, they are many.
#include <shardwise/testing/processes.hpp>

namespace shardwise::testing {

bool run_on_processes_elsewhere(int ranks, void (*body)(AnyCommunicator)) { return run_on_processes(ranks, body); }

}  // namespace shardwise::testing
