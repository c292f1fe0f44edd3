// run_ranks: a world of threads, one a rank. Layer: backends/thread.
#pragma once

#include <exception>
#include <string>
#include <thread>

#include <shardwise/backends/thread/communicator.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>

namespace shardwise {

/// Runs `f(ThreadCommunicator)` on n new threads, rank 0 to n - 1, and returns when all have finished.
///
/// A rank that leaves `f` by an exception stops the others: their calls throw PeerFailedError with its message. So
/// does a rank that returns while others still wait for it. Throws: the first exception that was not such a
/// consequence, as it was.
template <class F>
[[gnu::cold]] void run_ranks(int n, F&& f) {
  SHARDWISE_REQUIRE(n >= 1 && n <= 1024, detail::text("shardwise::run_ranks: 1 to 1024 ranks, not ", n));
  const auto world = detail::make_ref<detail::ThreadWorld>(n);
  detail::List<int> ranks;
  for (int r = 0; r < n; ++r) ranks.push_back(r);
  const auto group = detail::ThreadGroup::make(world, std::move(ranks));

  const auto run = [&](int rank) noexcept {
    const auto failed = [&](const std::string& what) {
      world->record(rank, std::current_exception());
      world->fail({detail::FailureKind::peer, detail::text("rank ", rank, " failed: ", what), rank});
    };
    try {
      f(ThreadCommunicator(group, rank));
    } catch (const std::exception& e) {
      failed(e.what());
    } catch (...) {
      failed("an exception that is no std::exception");
    }
    world->depart(rank);
  };

  // The calling thread takes no part: what is thread-local there (its tape, its listeners) is not a rank's.
  detail::List<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(n));
  try {
    for (int r = 0; r < n; ++r) threads.push_back(std::thread(run, r));
  } catch (const std::exception& e) {
    const int r = static_cast<int>(threads.size());
    world->fail({detail::FailureKind::peer, detail::text("rank ", r, " could not start: ", e.what()), r});
    for (std::thread& t : threads) t.join();
    detail::fail(detail::text("shardwise::run_ranks: no thread for rank ", r, " of ", n, ": ", e.what()));
  }
  for (std::thread& t : threads) t.join();
  if (const std::exception_ptr first = world->first_exception()) std::rethrow_exception(first);
}

}  // namespace shardwise
