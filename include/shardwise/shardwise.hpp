// Everything that needs no third party beyond Eigen: the core, operators, modules, plans, optimizers, CommDebugMode.
#pragma once

// g++ reads the bodies of templates once more at the end of a unit, and would there warn of every local name that the program has for a
// global of its own.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

#include <shardwise/core.hpp>

#include <shardwise/comm/capability.hpp>
#include <shardwise/comm/decorators.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/io/print.hpp>
#include <shardwise/io/scalapack.hpp>
#include <shardwise/nn/layers.hpp>
#include <shardwise/nn/visit.hpp>
#include <shardwise/ops/cast.hpp>
#include <shardwise/ops/eigen.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/norm.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/optim/sgd.hpp>
#include <shardwise/parallel/parallelize_module.hpp>
#include <shardwise/parallel/styles.hpp>
#include <shardwise/plan/plan.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/as_partial.hpp>
#include <shardwise/redistribute/async.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
