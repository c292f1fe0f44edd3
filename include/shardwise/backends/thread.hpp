// The thread backend: ThreadCommunicator and run_ranks. Needs nothing but a compiler. Layer: backends/thread.
#pragma once

#include <shardwise/backends/thread/communicator.hpp>
#include <shardwise/backends/thread/run_ranks.hpp>
