// ProcessWorld: this process' part in a world of processes: its rank, the store, the memory that its host shares, and how a failure
// that one rank finds reaches the others. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/communicator.hpp>
#include <shardwise/backends/process/endpoint.hpp>
#include <shardwise/backends/process/host_setup.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/message_group.hpp>
#include <shardwise/backends/process/shared_group.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/backends/process/store.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/warning.hpp>
#include <shardwise/comm/failure.hpp>

namespace shardwise::detail {

// Connects this rank with all others, for worlds that share no memory. Backends of networks give one.
using ConnectTransport = std::shared_ptr<Transport> (*)(int rank, int size, KeyValueStore& store,
                                                        std::chrono::milliseconds deadline);

// Where a process stands in a world, and where it meets the others.
struct WorldPlace {
  int rank = 0;
  int size = 1;
  Endpoint endpoint;
  StoreOptions store;  // its size is set here
  std::string host_id;  // ranks with equal ones are on one host
  std::chrono::milliseconds deadline{};
  bool shares_memory = true;  // with the ranks of its host
  ConnectTransport connect = nullptr;
  std::shared_ptr<Transport> transport;  // instead: reaches all others already

  bool has_network() const { return connect != nullptr || transport != nullptr; }
};

class ProcessWorld final : public std::enable_shared_from_this<ProcessWorld>,
                           private FailureListener,
                           private FailureBoard {
 public:
  // Ranks: all. Throws: TimeoutError that names who has not come; Error where this process does not belong there.
  static std::shared_ptr<ProcessWorld> join(WorldPlace place) {
    return std::shared_ptr<ProcessWorld>(new ProcessWorld(std::move(place)));
  }
  ProcessWorld(const ProcessWorld&) = delete;
  ProcessWorld& operator=(const ProcessWorld&) = delete;

  // Leaves in peace: the others need not wait for this rank. Rank 0 stays until they have left too: its process holds the store.
  ~ProcessWorld() override {
    if (host_ != nullptr) {
      host_->depart();
      host_->set_listener(nullptr);
    }
    client_->depart();
    if (server_ != nullptr) server_->wait_for_the_others(place_.deadline);
  }

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  KeyValueStore& store() const { return *client_; }
  // The id of each rank's host.
  const std::vector<std::string>& hosts() const { return hosts_; }

  // The communicator of all.
  ProcessCommunicator communicator() {
    const auto on = [&](auto group) {
      return ProcessCommunicator(std::move(group), place_.rank, shared_from_this()).with_deadline(place_.deadline);
    };
    return host_ != nullptr ? on(SharedGroup::of_host(host_)) : on(everybody_);
  }

  // Tells all ranks that this one is at its end: an exception that nobody catches.
  void fail(const std::string& what) noexcept {
    try {
      const Failure failure{FailureKind::peer, text("rank ", place_.rank, " failed: ", what), place_.rank};
      host_ != nullptr ? host_->fail(failure) : fail(failure);
    } catch (...) {  // no memory: they learn of the process' end
    }
  }

 private:
  explicit ProcessWorld(WorldPlace place) : place_(std::move(place)) {
    if (place_.deadline.count() <= 0) place_.deadline = default_deadline();
    place_.store.size = place_.size;
    if (place_.rank == 0)
      server_ =
          std::make_unique<StoreServer>(listen_at_endpoint(place_.endpoint, !place_.store.token.empty()), place_.store);
    client_ = std::make_unique<StoreClient>(
        place_.endpoint, place_.rank, place_.store, [this](const Notice& notice) { hear(notice); }, place_.deadline);
    client_->wait_for_all(place_.deadline);
    exchange_hosts();
    meet();
  }

  void exchange_hosts() {
    const auto key = [](int r) { return std::string(text("host of ", r)); };
    client_->set(key(place_.rank), place_.host_id);
    for (int r = 0; r < place_.size; ++r) hosts_.push_back(client_->get(key(r), place_.deadline));
  }

  void meet() {
    std::vector<int> all;
    bool together = place_.shares_memory;
    for (int r = 0; r < place_.size; ++r) {
      all.push_back(r);
      together = together && hosts_[static_cast<std::size_t>(r)] == place_.host_id;
    }
    if (together) share_memory(all);
    if (host_ == nullptr) connect(all, together);
    const std::lock_guard lock(mutex_);
    met_ = true;
    for (const int r : gone_)
      if (transport_ != nullptr) transport_->departed(r);
    if (heard_.kind != FailureKind::none) spread(heard_);
  }

  void share_memory(const std::vector<int>& all) {
    std::string obstacle;
    host_ = meet_on_host(*client_, "one host", all, place_.rank, place_.size, place_.deadline, obstacle);
    if (host_ != nullptr) return host_->set_listener(this);
    const std::string what = text("shardwise: the ranks of this host share no memory: ", obstacle);
    SHARDWISE_REQUIRE(place_.has_network(), what);
    if (place_.rank == 0) warn(what + "; they send messages");
  }

  void connect(std::vector<int> all, bool together) {
    SHARDWISE_REQUIRE(place_.has_network(),
                      text("shardwise: not all ", place_.size, " ranks ", together ? "share memory" : "are on one host",
                           ": link a network backend, shardwise::gloo"));
    transport_ = place_.transport != nullptr ? place_.transport
                                             : place_.connect(place_.rank, place_.size, *client_, place_.deadline);
    everybody_ =
        std::make_shared<MessageGroup>(transport_, static_cast<FailureBoard&>(*this), std::move(all), place_.size, 1);
  }

  // On the store's thread: another rank failed, died or left.
  void hear(const Notice& notice) {
    const std::lock_guard lock(mutex_);
    if (notice.kind == NoticeKind::departed) {
      gone_.push_back(notice.rank);  // a host's ranks read it in their memory
      if (met_ && transport_ != nullptr) transport_->departed(notice.rank);
    } else if (heard_.kind == FailureKind::none) {
      heard_ = notice.failure;
      if (met_) spread(notice.failure);
    }
    changed_.notify_all();
  }

  // With mutex_ held.
  void spread(const Failure& failure) {
    if (host_ != nullptr) host_->fail(failure);
    if (transport_ != nullptr) transport_->close();
  }

  // This process found a failure first, on its host. What came from the store is known there.
  void found(const Failure& failure) noexcept override {
    if (failure.found_by == place_.rank) client_->announce(failure);
  }

  // ---- the failures of a world that sends messages ----------------------------------------------------------------

  bool failed() const override {
    const std::lock_guard lock(mutex_);
    return heard_.kind != FailureKind::none;
  }
  Failure failure() override {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  void fail(const Failure& failure) override {
    {
      const std::lock_guard lock(mutex_);
      if (heard_.kind != FailureKind::none) return;
      heard_ = failure;
      changed_.notify_all();
    }
    client_->announce(failure);
    if (transport_ != nullptr) transport_->close();
  }
  bool await_cause(int peer) override {
    std::unique_lock lock(mutex_);
    const auto has_left = [&] { return std::find(gone_.begin(), gone_.end(), peer) != gone_.end(); };
    changed_.wait_for(lock, std::chrono::milliseconds(500),
                      [&] { return heard_.kind != FailureKind::none || has_left(); });
    if (heard_.kind != FailureKind::none) return true;
    if (!has_left()) return false;
    lock.unlock();
    fail({FailureKind::peer, text("rank ", peer, " left early: its program has ended"), place_.rank});
    return true;
  }

  WorldPlace place_;
  std::unique_ptr<StoreServer> server_;
  std::unique_ptr<StoreClient> client_;
  std::vector<std::string> hosts_;
  std::shared_ptr<SharedHost> host_;  // where all share memory
  std::shared_ptr<Transport> transport_;  // or else
  std::shared_ptr<MessageGroup> everybody_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false;
  std::vector<int> gone_;
  Failure heard_;
};

}  // namespace shardwise::detail
