// How ranks that are threads become ranks of a NCCL world: each has a device, and what NCCL's ranks share before they meet goes
// through the threads' communicator. Layer: backends/nccl.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/nccl/group.hpp>
#include <shardwise/backends/nccl/launched.hpp>
#include <shardwise/backends/process/failure_board.hpp>
#include <shardwise/backends/thread/communicator.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/cuda/device.hpp>

namespace shardwise::detail {

// One rank's way between the failures of its world of threads and its part of the NCCL world.
class ThreadFailures final : public FailureBoard, private FailureListener {
 public:
  ThreadFailures(Ref<ThreadWorld> world, int world_rank, std::shared_ptr<NcclWorld> part)
      : world_(std::move(world)), world_rank_(world_rank), part_(std::move(part)) {
    world_->tell_failures_to(*this);
  }
  ~ThreadFailures() override { world_->leave_out(*this); }
  ThreadFailures(const ThreadFailures&) = delete;
  ThreadFailures& operator=(const ThreadFailures&) = delete;

  bool failed() const override { return world_->has_failed(); }
  void fail(const Failure& failure) override { world_->fail({failure.kind, failure.message, world_rank_}); }
  Failure failure() override {
    return world_->failure(world_rank_);
  }  // what this rank throws from now on is its consequence
  bool await_cause(int) override { return failed(); }  // a thread's failure is known before what follows from it

 private:
  void found(const Failure&) noexcept override { part_->found(failure()); }

  Ref<ThreadWorld> world_;
  int world_rank_;
  std::shared_ptr<NcclWorld> part_;
};

// The ranks of `threads` as GPUs: each has the device of its number in their world. Throws: Error where there are fewer devices.
inline std::shared_ptr<NcclGroup> threads_over_nccl(const ThreadCommunicator& threads) {
  const int rank = threads.rank(), size = threads.size(), number = threads.group()->world_rank(rank);
  const int device = device_of_rank(rank, number);
  cuda::set_device(device);
  constexpr std::size_t width = 40;
  const std::string address = address_of(device, "");
  std::vector<std::uint8_t> own(width), all(width * static_cast<std::size_t>(size));
  address.copy(reinterpret_cast<char*>(own.data()), width - 1, address.rfind(' '));
  threads.all_gather<std::uint8_t>(own, std::span<std::uint8_t>(all));
  std::vector<std::string> addresses;
  for (std::size_t r = 0; r < static_cast<std::size_t>(size); ++r)
    addresses.emplace_back(reinterpret_cast<const char*>(all.data() + r * width));
  require_own_devices(addresses);
  ncclUniqueId unique{};
  if (rank == 0) unique = nccl_unique_id();
  threads.broadcast(std::span<std::uint8_t>(reinterpret_cast<std::uint8_t*>(unique.internal), sizeof unique.internal),
                    0);
  const auto part = std::make_shared<NcclWorld>();
  return NcclGroup::make(unique, size, rank, threads.deadline(), part,
                         std::make_shared<ThreadFailures>(threads.group()->shared_world(), number, part));
}

}  // namespace shardwise::detail
