// The TCP store of rank 0's process: rendezvous, keys and values, liveness, notices. Layer: backends/process.
#pragma once

#include <shardwise/backends/process/store_client.hpp>
#include <shardwise/backends/process/store_server.hpp>
