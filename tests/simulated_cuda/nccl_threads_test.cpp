// The ranks of run_ranks as GPUs: who meets, which device each has, and that a failure in one of the two worlds is one in the other.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/backends/thread.hpp>
#include <shardwise/core.hpp>
#include <shardwise/device/redistribute.hpp>

#include "simulated_cuda/control.hpp"

namespace {

using namespace shardwise;
using namespace std::chrono_literals;

void require_sum(const NcclCommunicator& c) {
  const auto mesh = init_device_mesh<"tp">(c, {c.size()});
  const auto sum =
      redistribute<Replicate>(from_local<Partial<>>(full<float>({100}, static_cast<float>(c.rank() + 1)), mesh));
  const auto right = full<float>({100}, static_cast<float>(c.size() * (c.size() + 1) / 2));
  if (!equal(sum.to_local(), right)) throw Error("a wrong sum");
}

// body(threads) on each rank of run_ranks. What each threw, with the kind of error before it; empty where nothing. Last: what
// run_ranks threw.
template <class Body>
std::vector<std::string> thrown_by(int ranks, const Body& body) {
  std::vector<std::string> thrown(static_cast<std::size_t>(ranks) + 1);
  const auto said = [](const std::exception_ptr& e) -> std::string {
    try {
      std::rethrow_exception(e);
    } catch (const PeerFailedError& error) {
      return std::string("PeerFailedError: ") + error.what();
    } catch (const TimeoutError& error) {
      return std::string("TimeoutError: ") + error.what();
    } catch (const std::exception& error) {
      return error.what();
    }
  };
  try {
    run_ranks(ranks, [&](ThreadCommunicator threads) {
      try {
        body(threads);
      } catch (...) {
        thrown[static_cast<std::size_t>(threads.rank())] = said(std::current_exception());
        throw;
      }
    });
  } catch (...) {
    thrown.back() = said(std::current_exception());
  }
  return thrown;
}
void check_says(const std::string& said, const std::string& words) {
  INFO(said);
  CHECK(said.find(words) != std::string::npos);
}

TEST_CASE("threads become ranks of a NCCL world, each with the device of its number") {
  for (const int ranks : {1, 2, 4}) {
    std::atomic<int> right{0};
    run_ranks(ranks, [&](ThreadCommunicator threads) {
      const NcclCommunicator world(threads);
      require_sum(world);
      right += world.rank() == threads.rank() && world.size() == ranks && world.device() == threads.rank() &&
               cuda::current_device() == threads.rank();
      const NcclCommunicator second(threads);  // another one of the same ranks
      require_sum(second);
      right += second.id() != world.id();
    });
    CHECK(right == 2 * ranks);
  }
}

TEST_CASE("the parts of a world of threads are NCCL worlds of their own, on devices of their own") {
  std::atomic<int> right{0};
  run_ranks(4, [&](ThreadCommunicator threads) {
    const auto part = threads.with_deadline(15s).split(threads.rank() / 2, -threads.rank());
    const NcclCommunicator world(*part);
    require_sum(world);
    right += world.size() == 2 && world.rank() == part->rank() && world.device() == threads.rank() &&
             world.deadline() == 15s;
  });
  CHECK(right == 4);
}

// When all are ready: a failure may come while others still meet.
NcclCommunicator met(const ThreadCommunicator& threads) {
  const NcclCommunicator world(threads.with_deadline(60s));
  threads.barrier();
  return world;
}

TEST_CASE("a rank that fails ends what the others wait for: messages of threads, calls of NCCL, the device itself") {
  std::atomic<int> ended{0};
  int ended_by_the_failure = 0;
  const auto said = thrown_by(4, [&](const ThreadCommunicator& threads) {
    const NcclCommunicator world = met(threads);
    require_sum(world);
    threads.barrier();
    if (world.rank() == 1) {
      threads.abort("out of cheese");
      for (int i = 0; i < 20000 && ended != 3; ++i) std::this_thread::sleep_for(1ms);
      ended_by_the_failure = ended;
      throw std::runtime_error("no more cheese");
    }
    struct End {
      std::atomic<int>& count;
      ~End() { ++count; }
    } const end{ended};
    if (world.rank() == 0) threads.barrier();
    if (world.rank() == 2) world.with_axis("tp").barrier();
    const detail::Buffer x = detail::device_buffer(64, cuda::current_stream());
    world.all_reduce<float>({x.as<float>(), 16}, {x.as<float>(), 16}, ReduceOp::sum);
    cuda::current_stream().synchronize();  // the runtime's own wait knows no failures
    world.synchronize();
  });
  CHECK(ended_by_the_failure == 3);
  CHECK(said[4] == "no more cheese");
  CHECK(said[0] == "PeerFailedError: shardwise::barrier: rank 1 aborted: out of cheese");
  CHECK(said[2] == "PeerFailedError: shardwise::barrier on axis 'tp': rank 1 aborted: out of cheese");
  check_says(said[3], "PeerFailedError: shardwise::");
  check_says(said[3], "rank 1 aborted: out of cheese");
}

TEST_CASE("what NCCL finds, a missed deadline and a rank that gives up are told to the threads") {
  const auto broken = thrown_by(3, [](const ThreadCommunicator& threads) {
    const NcclCommunicator world = met(threads);
    if (world.rank() == 2) {
      simulated_cuda::fail_next_collective(2, ncclSystemError);
      world.barrier();
    }
    threads.barrier();
  });
  check_says(broken[2], "PeerFailedError: shardwise::barrier: rank 2: ");
  for (const std::size_t r : {0u, 1u, 3u}) {
    check_says(broken[r], "PeerFailedError: shardwise::barrier: rank 2: ");
    check_says(broken[r], "unhandled system error");
  }
  const auto late = thrown_by(2, [](const ThreadCommunicator& threads) {
    const NcclCommunicator world = met(threads);
    if (world.rank() == 0) world.with_deadline(100ms).barrier();
    threads.barrier();
  });
  for (const auto& text : late)
    check_says(text, "TimeoutError: shardwise::barrier: deadline of 100 ms passed on rank 0");
  const auto given_up = thrown_by(2, [](const ThreadCommunicator& threads) {
    const NcclCommunicator world = met(threads);
    if (world.rank() == 0) world.abort("enough");
    if (world.rank() == 0) world.barrier();
    threads.barrier();
  });
  for (const auto& text : given_up) CHECK(text == "PeerFailedError: shardwise::barrier: rank 0 aborted: enough");
}

TEST_CASE("a failure before they meet: no device, one device for two, a rank that is gone") {
  const auto without = thrown_by(2, [](const ThreadCommunicator& threads) {
    simulated_cuda::see_devices(threads.rank() == 1 ? 0 : 4);
    const NcclCommunicator world(threads);
  });
  check_says(without[1], "shardwise::NcclCommunicator: rank 1 has no CUDA device");
  check_says(without[0], "PeerFailedError: ");
  check_says(without[0], "rank 1 failed: shardwise::NcclCommunicator: rank 1 has no CUDA device");
  const auto shared = thrown_by(3, [](const ThreadCommunicator& threads) {
    simulated_cuda::see_devices(1);
    const NcclCommunicator world(threads);
  });
  check_says(shared[3], "shardwise::NcclCommunicator: ranks 0 and 1 have the same CUDA device, 0000:01:00.0");
  const auto crowded = thrown_by(3, [](const ThreadCommunicator& threads) {
    simulated_cuda::see_devices(2);
    const NcclCommunicator world(threads);
  });
  check_says(crowded[3], "rank 2 is rank 2 (from 0) of its host, which has 2 CUDA devices");
  const auto gone = thrown_by(3, [](const ThreadCommunicator& threads) {
    if (threads.rank() == 2) throw std::runtime_error("out of cheese");
    const NcclCommunicator world(threads);
  });
  CHECK(gone[3] == "out of cheese");
  for (const std::size_t r : {0u, 1u}) check_says(gone[r], "rank 2 failed: out of cheese");
}

}  // namespace
