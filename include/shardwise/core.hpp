// The core: placements, meshes, tensors, redistribution, the tape and the thread backend. Needs a C++20 compiler
// alone; shardwise.hpp adds operators, modules and plans, which need Eigen.
#pragma once

#if __cplusplus < 202002L
#error "shardwise: C++20 is needed: -std=c++20, or link the CMake target shardwise::shardwise, which asks for it"
#elif defined(__clang__) && !defined(__apple_build_version__) && __clang_major__ < 17
#error "shardwise: clang 17 or newer is needed: older ones do not deduce ColwiseParallel{.output_layouts = Replicate{}}"
#elif defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#error "shardwise: g++ 12 or newer is needed"
#endif

// g++ reads the bodies of templates once more at the end of a unit, and would there warn of every local name that the program has for a
// global of its own.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/base/warning.hpp>
#include <shardwise/backends/thread.hpp>
#include <shardwise/mesh/device_mesh.hpp>
#include <shardwise/placement/placement.hpp>
#include <shardwise/placement/transition.hpp>
#include <shardwise/redistribute/into.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/other_mesh.hpp>
#include <shardwise/redistribute/plan_redistribute.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tape/tape.hpp>
#include <shardwise/tensor/factories.hpp>
#include <shardwise/tensor/random.hpp>
#include <shardwise/tensor/tensor.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
