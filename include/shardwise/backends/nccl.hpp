// Ranks that are GPUs, connected by NCCL. Layer: backends/nccl.
#pragma once

#include <shardwise/backends/nccl/communicator.hpp>
