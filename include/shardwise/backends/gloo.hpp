// Ranks that are processes, on one host or several: GlooCommunicator, shardwise::gloo. Layer: backends/gloo.
#pragma once

#include <shardwise/backends/gloo/communicator.hpp>
#include <shardwise/backends/gloo/device.hpp>
#include <shardwise/backends/gloo/transport.hpp>
