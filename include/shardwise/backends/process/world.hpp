// ProcessWorld: this process' part in a world of processes: its rank, the store, the memory that its host shares, and how a failure
// that one rank finds reaches the others. Layer: backends/process.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/communicator.hpp>
#include <shardwise/backends/process/endpoint.hpp>
#include <shardwise/backends/process/host_setup.hpp>
#include <shardwise/backends/process/shared_group.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/backends/process/store.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/failure.hpp>

namespace shardwise::detail {

// Where a process stands in a world, and where it meets the others.
struct WorldPlace {
  int rank = 0;
  int size = 1;
  Endpoint endpoint;
  StoreOptions store;  // its size is set here
  std::string host_id;  // ranks with equal ones are on one host
  std::chrono::milliseconds deadline{};
};

class ProcessWorld final : public std::enable_shared_from_this<ProcessWorld>, private FailureListener {
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
    ProcessCommunicator c(SharedGroup::of_host(host_), place_.rank, shared_from_this());
    return place_.deadline.count() > 0 ? c.with_deadline(place_.deadline) : c;
  }

  // Tells all ranks that this one is at its end: an exception that nobody catches.
  void fail(const std::string& what) noexcept {
    try {
      host_->fail({FailureKind::peer, text("rank ", place_.rank, " failed: ", what), place_.rank});
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
    std::vector<int> here;
    int self = 0;
    for (int r = 0; r < place_.size; ++r) {
      if (hosts_[static_cast<std::size_t>(r)] != place_.host_id) continue;
      if (r == place_.rank) self = static_cast<int>(here.size());
      here.push_back(r);
    }
    SHARDWISE_REQUIRE(static_cast<int>(here.size()) == place_.size,
                      text("shardwise: rank ", place_.rank, " shares its host with ", here.size() - 1, " of ",
                           place_.size - 1, " ranks; across hosts a network backend is needed"));
    std::string obstacle;
    host_ =
        meet_on_host(*client_, text("ranks with ", here.front()), here, self, place_.size, place_.deadline, obstacle);
    SHARDWISE_REQUIRE(host_ != nullptr, text("shardwise: the ranks of this host cannot share memory: ", obstacle));
    host_->set_listener(this);
    const std::lock_guard lock(mutex_);
    met_ = true;
    if (heard_.kind != FailureKind::none) host_->fail(heard_);
  }

  // On the store's thread: another rank failed or died.
  void hear(const Notice& notice) {
    if (notice.kind == NoticeKind::departed) return;  // the segment says so too
    const std::lock_guard lock(mutex_);
    heard_ = notice.failure;
    if (met_) host_->fail(notice.failure);
  }

  // This process found a failure first, on its host: the other hosts are told. What came from the store is known there.
  void found(const Failure& failure) noexcept override {
    if (failure.found_by == place_.rank) client_->announce(failure);
  }

  WorldPlace place_;
  std::unique_ptr<StoreServer> server_;
  std::unique_ptr<StoreClient> client_;
  std::vector<std::string> hosts_;
  std::shared_ptr<SharedHost> host_;
  std::mutex mutex_;
  bool met_ = false;
  Failure heard_;
};

}  // namespace shardwise::detail
