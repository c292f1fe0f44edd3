// MpiRuntime: MPI in this process: who initialised it, which thread may call it, and an end that does not wait for ranks that
// are lost. Layer: backends/mpi.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include <sched.h>

// The C interface alone: the C++ one is gone from the standard, and costs time.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/own_process.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/arguments.hpp>

static_assert(MPI_VERSION >= 3, "shardwise: shardwise::mpi needs MPI-3");

namespace shardwise::detail {

using MpiClock = std::chrono::steady_clock;

[[gnu::cold]] inline std::string mpi_error_text(int code) {
  char words[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, words, &length) != MPI_SUCCESS) return text("MPI error ", code);
  return {words, static_cast<std::size_t>(length)};
}

// Between two looks at requests: MPI has no wait with a deadline. Ranks may be more than cores, so it yields first, and then sleeps,
// the longer the longer nothing came. After a look that took long it does not yield: others have run already, since Open MPI yields
// itself where ranks are more than cores. Twice costs a large move a tenth where other programs want the cores, too.
class PollPause {
 public:
  void start_over() { looks_ = 0; }
  void rest() {
    ++looks_;
    if (looks_ >= 300)
      std::this_thread::sleep_for(std::chrono::microseconds(looks_ < 1500 ? 20 : looks_ < 3000 ? 200 : 1000));
    else if (MpiClock::now() - rested_ < long_look)
      sched_yield();
    rested_ = MpiClock::now();
  }

 private:
  static constexpr std::chrono::microseconds long_look{5};
  int looks_ = 0;
  MpiClock::time_point rested_{};
};

// Whether `request` is done by `until`; if not, it is still under way, and so is its memory.
inline bool finish_by(MPI_Request& request, MpiClock::time_point until) {
  PollPause pause;
  for (;;) {
    int done = 0;
    const int error = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (error != MPI_SUCCESS) throw CommError(text("shardwise::rendezvous: MPI failed: ", mpi_error_text(error)));
    if (done != 0) return true;
    if (MpiClock::now() >= until) return false;
    pause.rest();
  }
}

class MpiRuntime {
 public:
  // Uses MPI as the program has initialised it; else initialises it, and finalises it at the end of the process.
  // Ranks: all of the launcher's world. Throws: Error where this is not the thread that MPI may be called on.
  static MpiRuntime& start() {
    static MpiRuntime runtime;
    runtime.require_usable();
    return runtime;
  }
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  // MPI_Finalize waits for all ranks without limit: it is left out where they do not come to the end, too.
  ~MpiRuntime() {
    if (!initialised_here_ || !usable() || !process_.here()) return;
    const std::chrono::milliseconds limit =
        trouble().load() ? std::min(patience_after_failure, default_deadline()) : default_deadline();
    MPI_Request all = MPI_REQUEST_NULL;
    if (MPI_Ibarrier(MPI_COMM_WORLD, &all) != MPI_SUCCESS) return;
    try {
      if (finish_by(all, MpiClock::now() + limit)) MPI_Finalize();
    } catch (const CommError&) {
    }
  }

  static bool is_initialised() {
    int yes = 0;
    return MPI_Initialized(&yes) == MPI_SUCCESS && yes != 0;
  }
  static bool is_finalised() {
    int yes = 0;
    return MPI_Finalized(&yes) != MPI_SUCCESS || yes != 0;
  }

  // This thread may call MPI now.
  bool usable() const { return may_call() && !is_finalised(); }
  bool may_call() const { return level_ >= MPI_THREAD_SERIALIZED || std::this_thread::get_id() == thread_; }
  void require_usable() const {
    SHARDWISE_REQUIRE(may_call(),
                      "shardwise: MPI was initialised for calls from one thread (MPI_THREAD_FUNNELED), and this is "
                      "another: communicate on that thread, or call MPI_Init_thread with MPI_THREAD_SERIALIZED first");
    SHARDWISE_REQUIRE(!is_finalised(), "shardwise: MPI has been finalised: communicators end before MPI_Finalize");
  }

  // Some rank may never come to the end.
  static void expect_trouble() { trouble().store(true); }

 private:
  MpiRuntime() : thread_(std::this_thread::get_id()) {
    if (is_initialised()) {
      int main_thread = 1;
      if (!is_finalised() && MPI_Query_thread(&level_) == MPI_SUCCESS && level_ < MPI_THREAD_SERIALIZED)
        MPI_Is_thread_main(&main_thread);
      if (main_thread == 0) thread_ = std::thread::id();  // a thread of its own would be needed to ask which
      return;
    }
    const int error = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level_);
    SHARDWISE_REQUIRE(error == MPI_SUCCESS, text("shardwise: MPI_Init_thread failed: ", mpi_error_text(error)));
    initialised_here_ = true;
  }

  static std::atomic<bool>& trouble() {
    static std::atomic<bool> expected{false};
    return expected;
  }

  static constexpr std::chrono::milliseconds patience_after_failure{10'000};

  std::thread::id thread_;
  int level_ = MPI_THREAD_SINGLE;  // the threads of this library call nothing: enough
  bool initialised_here_ = false;
  OwnProcess process_;
};

// "Open MPI v4.1.4", "MPICH Version: 4.0.2".
[[gnu::cold]] inline std::string mpi_library() {
  char words[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(words, &length);
  std::string line(words, static_cast<std::size_t>(length));
  line = line.substr(0, line.find_first_of(",\n"));
  std::replace(line.begin(), line.end(), '\t', ' ');
  return line;
}

// MPI, initialised, whose world is the one that the launcher started: under the launcher of another MPI every rank would be a world
// of its own. Throws: Error.
inline MpiRuntime& start_mpi(const LaunchEnvironment& launched) {
  MpiRuntime& runtime = MpiRuntime::start();
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  SHARDWISE_REQUIRE(size == launched.size && rank == launched.rank,
                    text("shardwise: the launcher (", launched.launcher, ") started rank ", launched.rank, " of ",
                         launched.size, ", but MPI says that this is rank ", rank, " of ", size,
                         ": does the launcher belong to another MPI? This program was built with ", mpi_library(),
                         ": start it with that one's mpirun"));
  return runtime;
}

}  // namespace shardwise::detail
