// Ranks that are threads with a simulated device each.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/device/tensor.hpp>

namespace test {

template <class T, std::size_t R>
shardwise::Tensor<T, R> on_host(const shardwise::Tensor<T, R>& x) {
  return x;
}
template <class T, std::size_t R>
shardwise::Tensor<T, R> on_host(const shardwise::Tensor<T, R, shardwise::Cuda>& x) {
  return shardwise::to_host(x);
}

// Runs body on each rank, a thread with the device of its number. What each threw, empty where nothing.
inline std::vector<std::string> on_ranks(int ranks, const std::function<void(const shardwise::NcclCommunicator&)>& body,
                                         std::chrono::milliseconds deadline = std::chrono::seconds(20)) {
  const ncclUniqueId unique = shardwise::nccl_unique_id();
  std::vector<std::string> thrown(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      try {
        shardwise::cuda::set_device(r);
        body(shardwise::NcclCommunicator(unique, ranks, r, deadline));
      } catch (const std::exception& e) {
        thrown[static_cast<std::size_t>(r)] = e.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return thrown;
}
inline void check_none(const std::vector<std::string>& thrown) {
  for (std::size_t r = 0; r < thrown.size(); ++r) {
    INFO("rank ", r, ": ", thrown[r]);
    CHECK(thrown[r].empty());
  }
}

}  // namespace test
