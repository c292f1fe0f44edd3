// Ranks that are threads or processes, as the environment decides: AnyCommunicator and from_env. Layer: backends/any.
#pragma once

#include <shardwise/backends/any/communicator.hpp>
#include <shardwise/backends/any/from_env.hpp>
