// ProcessWorld: this process' part in a world of processes: its rank, the store, the memory that its host shares, and how a failure
// that one rank finds reaches the others. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardwise/backends/process/communicator.hpp>
#include <shardwise/backends/process/departure.hpp>
#include <shardwise/backends/process/endpoint.hpp>
#include <shardwise/backends/process/host_setup.hpp>
#include <shardwise/backends/process/hosted_transport.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/message_group.hpp>
#include <shardwise/backends/process/own_process.hpp>
#include <shardwise/backends/process/rendezvous.hpp>
#include <shardwise/backends/process/shared_group.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/backends/process/wait_notes.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/warning.hpp>
#include <shardwise/comm/failure.hpp>

namespace shardwise::detail {

// Connects this rank with those that `reaches` holds for: the ranks that it shares no memory with. Backends of networks give one.
using ConnectTransport = std::shared_ptr<Transport> (*)(int rank, const std::vector<bool>& reaches,
                                                        KeyValueStore& store, std::chrono::milliseconds deadline);

// Where a process stands in a world, and where it meets the others.
struct WorldPlace {
  int rank = 0;
  int size = 1;
  Endpoint endpoint;
  StoreOptions store;  // its size is set here
  std::string host_id;  // ranks with equal ones are on one host
  std::chrono::milliseconds deadline{};
  bool shares_memory = true;  // with the ranks of its host
  bool store_only = false;  // the ranks have nothing else in common: no communicator of processes
  ConnectTransport connect = nullptr;
  std::shared_ptr<Transport> transport;  // instead: reaches all others already
  void (*after_failure)() = nullptr;  // called at the end of a world that failed

  bool has_network() const { return connect != nullptr || transport != nullptr; }
};

class ProcessWorld final : public std::enable_shared_from_this<ProcessWorld>,
                           private FailureListener,
                           private FailureBoard,
                           private DepartureBoard {
 public:
  // Ranks: all. Throws: TimeoutError that names who has not come; Error where this process does not belong there.
  static std::shared_ptr<ProcessWorld> join(WorldPlace place) {
    return {new ProcessWorld(std::move(place)), [](ProcessWorld* world) {
              if (world->process_.here()) delete world;
            }};
  }
  ProcessWorld(const ProcessWorld&) = delete;
  ProcessWorld& operator=(const ProcessWorld&) = delete;

  // Leaves in peace: the others need not wait for this rank. Rank 0 stays until they have left too: its process holds the store.
  ~ProcessWorld() override {
    if (place_.after_failure != nullptr && failed()) place_.after_failure();
    // Whoever found it says it too, but perhaps later than this rank's end is heard elsewhere.
    if (failed()) rendezvous_->announce(failure());
    if (host_ != nullptr) {
      host_->depart();
      host_->set_listener(nullptr);
    }
    rendezvous_->close();
  }

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  KeyValueStore& store() const { return *rendezvous_; }
  // The id of each rank's host.
  const std::vector<std::string>& hosts() const { return hosts_; }

  // The communicator of all; not where they share the store alone.
  ProcessCommunicator communicator() {
    const auto on = [&](auto group) {
      return ProcessCommunicator(std::move(group), place_.rank, shared_from_this()).with_deadline(place_.deadline);
    };
    return everybody_ == nullptr ? on(SharedGroup::of_host(host_)) : on(everybody_);
  }

  // Counts the calls: the same on all ranks that make the same calls, for keys of the store.
  int next_number() { return ++numbers_; }
  // Where other means of communication tell their failures, and learn of those that the world has found.
  FailureBoard& failures() { return *this; }
  // From now on `listener` is told the first failure of the world, on the thread that learns of it; at once where there is one.
  void tell_failures_to(std::weak_ptr<FailureListener> listener) {
    std::unique_lock lock(mutex_);
    const Failure heard = heard_;
    listeners_.push_back(listener);
    lock.unlock();
    const std::shared_ptr<FailureListener> kept = listener.lock();
    if (heard.kind != FailureKind::none && kept != nullptr) kept->found(heard);
  }

  // The same of ranks that leave in peace: where words for the others are left, and who is told theirs from now on.
  DepartureBoard& departures() { return *this; }
  void tell_departures_to(std::weak_ptr<DepartureListener> listener) {
    const std::lock_guard lock(mutex_);
    departure_listeners_.push_back(std::move(listener));
  }

  // Tells all ranks that this one is at its end: an exception that nobody catches.
  void fail(const std::string& what) noexcept {
    if (!process_.here()) return;
    try {
      fail(Failure{FailureKind::peer, text("rank ", place_.rank, " failed: ", what), place_.rank});
    } catch (...) {  // no memory: they learn of the process' end
    }
  }

 private:
  explicit ProcessWorld(WorldPlace place) : place_(std::move(place)) {
    if (place_.deadline.count() <= 0) place_.deadline = default_deadline();
    place_.store.size = place_.size;
    rendezvous_ = std::make_unique<Rendezvous>(
        place_.rank, place_.endpoint, place_.store, [this](const Notice& notice) { hear(notice); }, place_.deadline);
    exchange_hosts();
    meet();
  }

  void exchange_hosts() {
    const auto key = [](int r) { return std::string(text("host of ", r)); };
    rendezvous_->set(key(place_.rank), place_.host_id);
    for (int r = 0; r < place_.size; ++r) hosts_.push_back(rendezvous_->get(key(r), place_.deadline));
  }

  void meet() {
    std::vector<int> neighbours;
    for (int r = 0; r < place_.size; ++r)
      if (hosts_[static_cast<std::size_t>(r)] == place_.host_id) neighbours.push_back(r);
    const bool one_host = neighbours.size() == hosts_.size();
    if (place_.shares_memory && !place_.store_only && (one_host || neighbours.size() > 1)) share_memory(neighbours);
    if (!place_.store_only && (host_ == nullptr || !one_host)) connect(neighbours);
    std::unique_lock lock(mutex_);
    met_ = true;
    for (const int r : gone_)
      if (transport_ != nullptr) transport_->departed(r);
    const Failure heard = heard_;
    lock.unlock();
    if (heard.kind != FailureKind::none) spread(heard);
  }

  void share_memory(const std::vector<int>& neighbours) {
    std::string obstacle;
    const auto self = std::find(neighbours.begin(), neighbours.end(), place_.rank) - neighbours.begin();
    const std::string key = text("memory of ", neighbours[0]);
    host_ = meet_on_host(*rendezvous_, key, neighbours, static_cast<int>(self), place_.size, place_.deadline, obstacle);
    if (host_ != nullptr) return host_->set_listener(this);
    const std::string what = text("the ranks of this host share no memory: ", obstacle);
    SHARDWISE_REQUIRE(place_.has_network(), "shardwise: " + what);
    if (self == 0) warn(what + "; they send messages");
  }

  // Ranks of other hosts, and those of this one where they share no memory.
  void connect(const std::vector<int>& neighbours) {
    const bool one_host = neighbours.size() == hosts_.size();
    SHARDWISE_REQUIRE(place_.has_network(),
                      text("shardwise: not all ", place_.size, " ranks ", one_host ? "share memory" : "are on one host",
                           ": link a network backend, shardwise::gloo"));
    std::vector<bool> reaches(hosts_.size(), true);
    for (const int r : neighbours) reaches[static_cast<std::size_t>(r)] = host_ == nullptr;
    transport_ = place_.transport != nullptr ? place_.transport
                                             : place_.connect(place_.rank, reaches, *rendezvous_, place_.deadline);
    const auto notes = std::make_shared<WaitNotes>(*rendezvous_, place_.rank);
    transport_->read_also(notes);
    if (host_ != nullptr) transport_ = std::make_shared<HostedTransport>(std::move(transport_), host_);
    transport_->read_also(notes);
    std::vector<int> all(hosts_.size());
    for (int r = 0; r < place_.size; ++r) all[static_cast<std::size_t>(r)] = r;
    everybody_ = std::make_shared<MessageGroup>(transport_, static_cast<FailureBoard&>(*this), std::move(all),
                                                place_.size, 1, host_);
  }

  // On the store's thread: another rank failed, died or left.
  void hear(const Notice& notice) {
    std::unique_lock lock(mutex_);
    changed_.notify_all();
    if (notice.kind == NoticeKind::departed) {
      gone_.push_back(notice.rank);  // a host's ranks read it in their memory
      if (met_ && transport_ != nullptr) transport_->departed(notice.rank);
      const auto listeners = departure_listeners_;
      lock.unlock();
      for (const auto& listener : listeners)
        if (const auto kept = listener.lock()) kept->departed(notice.rank, notice.failure.message);
    } else if (heard_.kind == FailureKind::none) {
      heard_ = notice.failure;
      const bool all_is_made = met_;
      lock.unlock();
      if (all_is_made) spread(notice.failure);
    }
  }

  // The ranks of the host find the words in its memory once their waits have ended.
  void spread(const Failure& failure) {
    if (host_ != nullptr) host_->fail(failure);
    if (transport_ != nullptr) transport_->close();
    std::unique_lock lock(mutex_);
    const auto listeners = listeners_;
    lock.unlock();
    for (const auto& listener : listeners)
      if (const auto kept = listener.lock()) kept->found(failure);
  }

  void say_on_leaving(std::string_view words) override { rendezvous_->say_on_leaving(words); }

  // A rank of this host found a failure first: this process, or one that says so to the store itself.
  void found(const Failure& failure) noexcept override {
    if (failure.found_by == place_.rank) fail(failure);
  }

  // ---- the failures of the world ------------------------------------------------------------------------------------

  bool failed() const override {
    const std::lock_guard lock(mutex_);
    return heard_.kind != FailureKind::none || (host_ != nullptr && host_->failed());
  }
  Failure failure() override {
    {
      const std::lock_guard lock(mutex_);
      if (heard_.kind != FailureKind::none || host_ == nullptr || !host_->failed()) return heard_;
    }
    const Failure on_host = host_->failure();
    const std::lock_guard lock(mutex_);
    if (heard_.kind == FailureKind::none) heard_ = on_host;
    return heard_;
  }
  void fail(const Failure& failure) override {
    {
      const std::lock_guard lock(mutex_);
      if (heard_.kind != FailureKind::none) return;
      heard_ = failure;
      changed_.notify_all();
    }
    rendezvous_->announce(failure);
    spread(failure);
  }
  bool await_cause(int peer) override {
    std::unique_lock lock(mutex_);
    const auto has_left = [&] { return std::find(gone_.begin(), gone_.end(), peer) != gone_.end(); };
    changed_.wait_for(lock, std::chrono::milliseconds(500),
                      [&] { return heard_.kind != FailureKind::none || has_left(); });
    if (heard_.kind != FailureKind::none || (host_ != nullptr && host_->failed())) return true;
    if (!has_left()) return false;
    lock.unlock();
    fail({FailureKind::peer, text("rank ", peer, " left early: its program has ended"), place_.rank});
    return true;
  }

  const OwnProcess process_;
  WorldPlace place_;
  std::vector<std::string> hosts_;
  std::shared_ptr<SharedHost> host_;  // where ranks of the host share memory
  std::shared_ptr<Transport> transport_;  // to those that do not
  std::shared_ptr<MessageGroup> everybody_;  // where not all do
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false;
  std::vector<int> gone_;
  std::vector<std::weak_ptr<FailureListener>> listeners_;
  std::vector<std::weak_ptr<DepartureListener>> departure_listeners_;
  Failure heard_;
  int numbers_ = 0;
  // Ends first: its thread, which hears of the others' ends, uses all of these.
  std::unique_ptr<Rendezvous> rendezvous_;
};

}  // namespace shardwise::detail
