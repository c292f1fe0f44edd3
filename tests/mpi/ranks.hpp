// The ranks that mpirun started this test program as. Each case makes communicators of its own, so that a failure in one does
// not poison the next.
#pragma once

#include <chrono>
#include <string>

#include <shardwise/backends/mpi.hpp>
#include <shardwise/base/error.hpp>

namespace test {

using namespace std::chrono_literals;

constexpr std::chrono::seconds hang{300};  // far more than anything takes

// Of the program's own, whatever became of the library's.
inline void meet_by_mpi() { MPI_Barrier(MPI_COMM_WORLD); }

// What one does wrong afterwards reaches none that is still on its way here.
inline shardwise::MpiCommunicator all_ranks() {
  shardwise::MpiCommunicator c(MPI_COMM_WORLD, hang);
  meet_by_mpi();
  return c;
}

// What f throws, which must be an E; "" if nothing.
template <class E, class F>
std::string thrown(F f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "";
}

inline bool contains(const std::string& words, const std::string& part) {
  return words.find(part) != std::string::npos;
}

}  // namespace test
