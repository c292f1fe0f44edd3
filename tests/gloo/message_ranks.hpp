// Forked ranks that exchange messages over Gloo, with the store of rank 0 behind them and nothing shared. For tests.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/gloo/transport.hpp>
#include <shardwise/backends/process/message_group.hpp>
#include <shardwise/backends/process/store.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/direct_collectives.hpp>
#include <shardwise/comm/message_collectives.hpp>

#include "process/forked.hpp"

namespace test {

using namespace std::chrono_literals;
namespace detail = shardwise::detail;

// A rank's store, connections, and first failure.
class MessageWorld final : public detail::FailureBoard {
 public:
  MessageWorld(int rank, int size, const std::string& run, const std::string& address,
               std::chrono::milliseconds deadline)
      : rank_(rank), size_(size), departed_(static_cast<std::size_t>(size)),
        transport_(std::make_shared<detail::GlooTransport>(rank, size, detail::gloo_address(address))) {
    detail::Endpoint endpoint;
    endpoint.local = "shardwise-gloo-test-" + run;
    detail::StoreOptions options;
    options.size = size;
    options.run_id = run;
    if (rank == 0)
      server_ = std::make_unique<detail::StoreServer>(detail::listen_at_endpoint(endpoint, false), options);
    client_ = std::make_unique<detail::StoreClient>(
        endpoint, rank, options, [this](const detail::Notice& notice) { hear(notice); }, deadline);
    client_->wait_for_all(deadline);
  }
  void connect(std::chrono::milliseconds deadline) {
    transport_->connect(*client_, "world", deadline);
    transport_->read_also(std::make_shared<detail::WaitNotes>(*client_, rank_));
  }
  ~MessageWorld() override {
    client_->depart();
    if (server_ != nullptr) server_->wait_for_the_others(hang);
  }

  bool failed() const override { return failed_.load(); }
  void fail(const detail::Failure& failure) override {
    if (record(failure)) client_->announce(failure);
    transport_->close();
  }
  detail::Failure failure() override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }
  bool await_cause(int peer) override {
    std::unique_lock lock(mutex_);
    const auto gone = [&] { return peer >= 0 && departed_[static_cast<std::size_t>(peer)]; };
    changed_.wait_for(lock, missed(500ms), [&] { return failed_.load() || gone(); });
    if (failed_.load()) return true;
    if (!gone()) return false;
    lock.unlock();
    fail({detail::FailureKind::peer, detail::text("rank ", peer, " left early: its function has returned"), rank_});
    return true;
  }

  detail::KeyValueStore& store() { return *client_; }
  detail::GlooTransport& transport() { return *transport_; }
  std::shared_ptr<detail::MessageGroup> group(std::vector<int> world_ranks, std::uint64_t id) {
    return std::make_shared<detail::MessageGroup>(transport_, *this, std::move(world_ranks), size_, id);
  }

 private:
  bool record(const detail::Failure& failure) {
    const std::lock_guard lock(mutex_);
    if (failed_.load()) return false;
    failure_ = failure;
    failed_.store(true);
    changed_.notify_all();
    return true;
  }
  void hear(const detail::Notice& notice) {
    if (notice.kind == detail::NoticeKind::departed) {
      const std::lock_guard lock(mutex_);
      departed_[static_cast<std::size_t>(notice.rank)] = true;
      changed_.notify_all();
      return;
    }
    record(notice.failure);
    transport_->close();
  }

  const int rank_, size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> failed_{false};
  detail::Failure failure_;
  std::vector<bool> departed_;
  std::shared_ptr<detail::GlooTransport> transport_;
  std::unique_ptr<detail::StoreServer> server_;
  std::unique_ptr<detail::StoreClient> client_;
};

class MessageCommunicator : public detail::MessageCollectives<MessageCommunicator> {
 public:
  static constexpr shardwise::MemorySpace memory_space = shardwise::MemorySpace::host;

  MessageCommunicator(std::shared_ptr<MessageWorld> world, std::shared_ptr<detail::MessageGroup> group, int rank,
                      std::chrono::milliseconds deadline)
      : world_(std::move(world)), group_(std::move(group)), me_{rank, shardwise::Name(), deadline} {}

  int rank() const { return me_.rank; }
  int size() const { return group_->size(); }
  bool direct() const { return false; }
  std::uint64_t id() const { return group_->id(); }
  shardwise::Name axis() const { return me_.axis; }
  MessageCommunicator with_axis(shardwise::Name axis) const {
    MessageCommunicator c = *this;
    c.me_.axis = axis;
    return c;
  }
  std::chrono::milliseconds deadline() const { return me_.deadline; }
  MessageCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    MessageCommunicator c = *this;
    c.me_.deadline = detail::checked_deadline(deadline);
    return c;
  }

  template <class Body>
  void on_messages(const shardwise::CallInfo& call, Body body) const {
    detail::MessageGroup::Call channel(*group_, me_, call);
    body(channel);
  }
  [[noreturn]] void fail(std::string mismatch) const { group_->fail(me_, std::move(mismatch)); }
  std::string rank_text(int rank) const { return group_->rank_text(rank); }

  std::optional<MessageCommunicator> split(int color, int key) const {
    shardwise::CallInfo call;
    call.collective = shardwise::Collective::split;
    std::vector<detail::SplitChoice> choices(static_cast<std::size_t>(size()));
    const detail::SplitChoice mine{color, key};
    on_messages(call, [&](detail::MessageChannel& channel) {
      detail::all_gather_bytes(channel, reinterpret_cast<const std::byte*>(&mine),
                               reinterpret_cast<std::byte*>(choices.data()),
                               detail::BlockOffsets(size(), sizeof(detail::SplitChoice)));
    });
    ++*splits_;
    const std::vector<int> members = detail::split_members(choices, color);
    if (members.empty()) return std::nullopt;
    std::vector<int> world_ranks;
    for (const int r : members) world_ranks.push_back(group_->world_rank(r));
    MessageCommunicator part = *this;
    part.group_ = world_->group(world_ranks, id() * 1000003u + static_cast<std::uint64_t>(*splits_ * 1009 + color + 1));
    part.splits_ = std::make_shared<int>(0);
    part.me_.rank = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
    return part;
  }
  void abort(std::string reason) const {
    const int self = group_->world_rank(rank());
    world_->fail({detail::FailureKind::peer, detail::text("rank ", self, " aborted: ", reason), self});
  }

  detail::MessageGroup& group() const { return *group_; }
  MessageWorld& world() const { return *world_; }

 private:
  std::shared_ptr<MessageWorld> world_;
  std::shared_ptr<detail::MessageGroup> group_;
  std::shared_ptr<int> splits_ = std::make_shared<int>(0);
  detail::Caller me_;
};

// Of all ranks, at the end of run_gloo's setup.
inline MessageCommunicator join_over_gloo(int rank, int size, const std::string& run,
                                          const std::string& address = "127.0.0.1",
                                          std::chrono::milliseconds deadline = hang) {
  const auto world = std::make_shared<MessageWorld>(rank, size, run, address, deadline);
  world->connect(deadline);
  std::vector<int> all;
  for (int r = 0; r < size; ++r) all.push_back(r);
  return {world, world->group(all, 1), rank, deadline};
}

inline std::string new_run() {
  static int runs = 0;
  return std::to_string(getpid()) + "-" + std::to_string(++runs);
}

// f(communicator) on n forked ranks: what went wrong, "" if nothing.
template <class F>
std::string run_gloo(int n, F f, const std::string& address = "127.0.0.1") {
  return patiently([&] {
    const std::string run = new_run();
    return run_forked(n, [&](int rank) { f(join_over_gloo(rank, n, run, address)); });
  });
}

}  // namespace test
