// Ranks of an MPI program: MpiCommunicator, shardwise::mpi. Layer: backends/mpi.
#pragma once

#include <shardwise/backends/mpi/communicator.hpp>
#include <shardwise/backends/mpi/meeting.hpp>
#include <shardwise/backends/mpi/runtime.hpp>
#include <shardwise/backends/mpi/transport.hpp>
