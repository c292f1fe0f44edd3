// Launched processes that become ranks of a NCCL world through their store. The simulated NCCL connects threads, so that each process is a
// thread here, with a connection of its own to the store: what dies, fails or stays away is told as between processes.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/any.hpp>
#include <shardwise/backends/nccl.hpp>
#include <shardwise/cuda/copy.hpp>

#include "comm/conformance.hpp"
#include "simulated_cuda/control.hpp"

namespace {

using namespace shardwise;
using namespace std::chrono_literals;
using detail::ProcessWorld;

struct Run {
  std::string name = next_name();
  std::chrono::milliseconds deadline = 300s;

  detail::WorldPlace place(int rank, int size) const {
    detail::WorldPlace place;
    place.rank = rank;
    place.size = size;
    place.endpoint.local = "shardwise-nccl-test-" + name;
    place.store.run_id = name;
    place.host_id = "here";
    place.deadline = deadline;
    place.store_only = true;
    return place;
  }
  NcclCommunicator join(int rank, int size, int number_on_host) const {
    return {detail::meet_over_nccl(ProcessWorld::join(place(rank, size)), number_on_host, deadline), deadline};
  }
  NcclCommunicator join(int rank, int size) const { return join(rank, size, -1); }

  static std::string next_name() {
    static int runs = 0;
    return std::to_string(getpid()) + "-" + std::to_string(++runs);
  }
};

// body(rank) on a thread for each rank. What each threw, with the kind of error before it; empty where nothing.
std::vector<std::string> on_processes(int ranks, const std::function<void(int)>& body) {
  std::vector<std::string> thrown(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      std::string& said = thrown[static_cast<std::size_t>(r)];
      try {
        body(r);
      } catch (const PeerFailedError& e) {
        said = std::string("PeerFailedError: ") + e.what();
      } catch (const TimeoutError& e) {
        said = std::string("TimeoutError: ") + e.what();
      } catch (const std::exception& e) {
        said = std::string("Error: ") + e.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return thrown;
}
void check_says(const std::string& said, const std::string& words) {
  INFO(said);
  CHECK(said.find(words) != std::string::npos);
}

// The sum of rank + 1 over all, on the devices.
void require_sum(const NcclCommunicator& c) {
  const cuda::StreamView stream = cuda::current_stream();
  const std::vector<float> mine(100, static_cast<float>(c.rank() + 1));
  std::vector<float> all(mine.size());
  const std::size_t bytes = mine.size() * sizeof(float);
  const detail::Buffer x = detail::device_buffer(bytes, stream);
  detail::copy_to_device(x, detail::Buffer::view(const_cast<float*>(mine.data())), bytes, stream);
  const std::span<float> values(x.as<float>(), mine.size());
  c.all_reduce<float>(values, values, ReduceOp::sum);
  detail::copy_to_host(detail::Buffer::view(all.data()), x, bytes, stream);
  c.synchronize();
  const float right = static_cast<float>(c.size() * (c.size() + 1) / 2);
  for (const float v : all) test::conform(v == right, "the sum over " + std::to_string(c.size()) + " ranks");
}

TEST_CASE("processes meet through their store, each with the device of its number on its host") {
  for (const int ranks : {1, 2, 4}) {
    const Run run;
    for (const auto& said : on_processes(ranks, [&](int rank) {
           const NcclCommunicator c = run.join(rank, ranks);
           test::conform(c.rank() == rank && c.size() == ranks, "rank and size");
           test::conform(c.device() == rank && cuda::current_device() == rank, "the device");
           require_sum(c);
           const auto half = c.split(rank % 2, 0);
           require_sum(*half);
         }))
      CHECK(said == "");
  }
}

TEST_CASE("a world of processes can have several NCCL worlds, one after the other") {
  const Run run;
  for (const auto& said : on_processes(3, [&](int rank) {
         const auto world = ProcessWorld::join(run.place(rank, 3));
         const NcclCommunicator first(detail::meet_over_nccl(world, rank, 20s), 20s);
         const NcclCommunicator second(detail::meet_over_nccl(world, rank, 20s), 20s);
         test::conform(first.id() != second.id(), "ids of their own");
         require_sum(first);
         require_sum(second);
       }))
    CHECK(said == "");
}

TEST_CASE("a rank that sees one device has that one, whatever its number") {
  const Run run;
  for (const auto& said : on_processes(1, [&](int rank) {
         simulated_cuda::see_devices(1);
         test::conform(run.join(rank, 1, 3).device() == 0, "the only device");
       }))
    CHECK(said == "");
}

TEST_CASE("a rank without a device says so, and the others are told its words") {
  const Run run;
  const auto said = on_processes(3, [&](int rank) {
    simulated_cuda::see_devices(rank == 1 ? 0 : 4);
    run.join(rank, 3);
  });
  check_says(said[1], "Error: shardwise::NcclCommunicator: rank 1 has no CUDA device");
  for (const std::size_t r : {0u, 2u}) {
    check_says(said[r], "PeerFailedError: ");
    check_says(said[r], "rank 1 failed: shardwise::NcclCommunicator: rank 1 has no CUDA device");
  }
}

TEST_CASE("more ranks than devices, and two ranks of one device, are errors that name them") {
  const Run many;
  const auto crowded = on_processes(2, [&](int rank) { many.join(rank, 2, rank + 3); });
  check_says(crowded[1], "rank 1 is rank 4 (from 0) of its host, which has 4 CUDA devices");
  check_says(crowded[0], "rank 1 failed: ");
  const Run same;
  const auto shared = on_processes(3, [&](int rank) { same.join(rank, 3, rank == 2 ? 0 : rank); });
  for (const auto& text : shared) check_says(text, "ranks 0 and 2 have the same CUDA device, 0000:01:00.0");
}

TEST_CASE("a rank that was started with another number of ranks is refused by the store") {
  std::vector<std::string> said;
  for (auto deadline = 2s; deadline < 100s; deadline *= 4) {  // longer where a busy machine has no store up in time
    Run run;
    run.deadline = deadline;
    said = on_processes(2, [&](int rank) { run.join(rank, rank == 0 ? 2 : 3); });
    if (said[1].find("did not find the store") == std::string::npos) break;
  }
  check_says(said[1], "it was started with 3 ranks, rank 0 with 2");
  CHECK(said[0] != "");
}

TEST_CASE("a rank that dies is named by all others, also where they wait for the device itself") {
  const Run run;
  std::atomic<int> added{0}, ended{0};
  int ended_by_the_world = 0;
  const auto wait_for_both = [](const std::atomic<int>& count) {
    for (int i = 0; i < 300000 && count != 2; ++i) std::this_thread::sleep_for(1ms);
  };
  const auto said = on_processes(3, [&](int rank) {
    if (rank == 2) {  // a process without the library's care for its end: its connection to the store breaks
      const detail::WorldPlace place = run.place(rank, 3);
      detail::StoreOptions options = place.store;
      options.size = 3;
      auto store =
          std::make_unique<detail::Rendezvous>(rank, place.endpoint, options, [](const detail::Notice&) {}, 20s);
      store->set("host of 2", "here");
      cuda::set_device(2);
      store->set("nccl 1 device of 2", "here 0000:03:00.0");
      const std::string bytes = store->get("nccl 1 id", 20s);
      ncclUniqueId unique;
      std::memcpy(unique.internal, bytes.data(), sizeof unique.internal);
      const NcclCommunicator c(unique, 3, rank, 20s);
      require_sum(c);
      wait_for_both(added);
      store.reset();
      wait_for_both(ended);
      ended_by_the_world = ended;
      return c.abort("or else the others would wait for ever");
    }
    const NcclCommunicator c = run.join(rank, 3);
    require_sum(c);
    ++added;
    struct End {
      std::atomic<int>& count;
      ~End() { ++count; }
    } const end{ended};
    if (rank == 0) c.with_axis("tp").barrier();
    const detail::Buffer x = detail::device_buffer(64, cuda::current_stream());
    c.all_reduce<float>({x.as<float>(), 16}, {x.as<float>(), 16}, ReduceOp::sum);
    cuda::current_stream().synchronize();  // the runtime's own wait knows no failures
    c.split(0, 0);
  });
  CHECK(ended_by_the_world == 2);
  CHECK(said[2] == "");
  check_says(said[0], "PeerFailedError: shardwise::barrier on axis 'tp': rank 2 died");
  check_says(said[1], "PeerFailedError: shardwise::split: rank 2 died");
}

TEST_CASE(
    "a rank whose program has ended is named where others wait for it, on the device too; groups without it go on") {
  const Run run;
  std::atomic<bool> asked{false}, back{false};
  const auto wait_for = [](const std::atomic<bool>& flag) {
    for (int i = 0; i < 10000 && !flag; ++i) std::this_thread::sleep_for(1ms);
  };
  const auto said = on_processes(4, [&](int rank) {
    const NcclCommunicator c = run.join(rank, 4);
    require_sum(c);
    if (rank == 3) return wait_for(asked);
    if (rank == 2) {
      const detail::Buffer x = detail::device_buffer(64, cuda::current_stream());
      c.all_reduce<float>({x.as<float>(), 16}, {x.as<float>(), 16}, ReduceOp::sum);
      asked = true;
      cuda::current_stream().synchronize();  // the runtime's own wait knows no failures
      back = true;
    }
    wait_for(back);
    c.with_axis("tp").barrier();
  });
  CHECK(back);
  CHECK(said[3] == "");
  for (const std::size_t r : {0u, 1u, 2u})
    CHECK(said[r] == "PeerFailedError: shardwise::barrier on axis 'tp': rank 3 left early: its program has ended");

  const Run among;
  const auto good = on_processes(3, [&](int rank) {
    const NcclCommunicator c = among.join(rank, 3);
    const auto part = c.split(rank < 2 ? 0 : 1, 0);
    require_sum(c);
    if (rank == 2) return;
    std::this_thread::sleep_for(200ms);  // it has left meanwhile
    for (int i = 0; i < 3; ++i) require_sum(*part);
    c.synchronize();
  });
  for (const auto& text : good) CHECK(text == "");
}

TEST_CASE("the reason of a rank that gives up, and a deadline that has passed, are the same on all ranks") {
  const Run run;
  const auto given_up = on_processes(3, [&](int rank) {
    const NcclCommunicator c = run.join(rank, 3);
    c.barrier();
    if (rank == 1) c.abort("out of cheese");
    c.barrier();
  });
  for (const auto& said : given_up) CHECK(said == "PeerFailedError: shardwise::barrier: rank 1 aborted: out of cheese");

  const Run late;
  std::atomic<int> told{0};
  const auto missed = on_processes(3, [&](int rank) {
    const NcclCommunicator c = late.join(rank, 3);
    c.barrier();
    for (int i = 0; i < 300000 && rank == 2 && told != 2; ++i) std::this_thread::sleep_for(1ms);
    struct Told {
      std::atomic<int>& count;
      ~Told() { ++count; }
    } const counts{told};
    c.with_deadline(200ms).with_axis("dp").barrier();
  });
  check_says(missed[0], "TimeoutError: shardwise::barrier on axis 'dp': deadline of 200 ms passed on rank ");
  for (const auto& said : missed) CHECK(said == missed[0]);
}

TEST_CASE("an error that NCCL finds on one rank is told to the others with that rank's name") {
  const Run run;
  const auto said = on_processes(3, [&](int rank) {
    const NcclCommunicator c = run.join(rank, 3);
    c.barrier();
    if (rank == 1) simulated_cuda::fail_next_collective(1, ncclSystemError);
    c.barrier();
    c.barrier();
  });
  for (const auto& text : said) check_says(text, "rank 1: NCCL: unhandled system error");
}

TEST_CASE("without a launcher there is a world of one; from_env() does not take GPUs for ranks of the host") {
  setenv("SHARDWISE_BACKEND", "nccl", 1);
  const auto said = on_processes(1, [](int) { from_env(); });
  check_says(said[0], "SHARDWISE_BACKEND is nccl, but the tensors of an AnyCommunicator lie on the host: write "
                      "`NcclCommunicator world;`");
  const auto alone = on_processes(1, [](int) {
    const NcclCommunicator world;
    require_sum(world);
    test::conform(world.size() == 1 && world.device() == 0, "one rank on device 0");
  });
  unsetenv("SHARDWISE_BACKEND");
  CHECK(alone[0] == "");
}

}  // namespace
