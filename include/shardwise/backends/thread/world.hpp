// ThreadWorld: what all groups of one run_ranks share: the first failure, and which ranks have left. ThreadGate: the
// part of a group that a failure must reach. Layer: backends/thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/gate_word.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

struct ThreadGate {
  template <class = void>
  explicit ThreadGate(int ranks) : size(ranks), messages(static_cast<std::size_t>(ranks)) {}

  bool failed() const { return GateWord::failed(word.load()); }
  void notify_all() noexcept {
    signal.notify();
    for (WaitSignal& one : messages) one.notify();
  }

  const int size;
  alignas(64) std::atomic<std::uint64_t> word{0};
  WaitSignal signal;          // collectives
  List<WaitSignal> messages;  // send and recv, one a rank
};

// A template, as what follows is, so that a unit that runs no threads compiles none of it.
template <class = void>
class BasicThreadWorld {
 public:
  [[gnu::cold]] explicit BasicThreadWorld(int ranks)
      : ranks_(static_cast<std::size_t>(ranks)), size_(ranks), patience_(patience_for(ranks)) {}

  int size() const { return size_; }
  // By the ranks of the world: a small group of a large world shares the cores with all of it.
  Patience patience() const { return patience_; }

  [[gnu::cold]] void add(const Ref<ThreadGate>& gate) {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = gates_.size(); i-- > 0;)
      if (gates_[i].expired()) gates_.remove(i);
    gates_.push_back(gate);
    if (failure_.kind != FailureKind::none) gate->word.fetch_or(GateWord::failed_bit);
  }

  // The first failure stays; it stops every group.
  [[gnu::cold]] void fail(Failure failure) {
    {
      const std::lock_guard lock(mutex_);
      spread(std::move(failure));
    }
    tell();
  }

  // Fails unless `gate` has completed generation `generation` or failed meanwhile: in either case its word says so.
  [[gnu::cold]] void fail_unless_complete(ThreadGate& gate, std::uint32_t generation, Failure failure) {
    {
      const std::lock_guard lock(mutex_);
      std::uint64_t word = gate.word.load();
      do {
        if (GateWord::generation(word) != generation || GateWord::failed(word)) return;
      } while (!gate.word.compare_exchange_weak(word, word | GateWord::failed_bit));
      spread(std::move(failure));
    }
    tell();
  }

  [[gnu::cold]] Failure failure(int world_rank) {
    const std::lock_guard lock(mutex_);
    if (failure_.found_by != world_rank) rank(world_rank).told = true;
    return failure_;
  }

  [[gnu::cold]] bool has_failed() {
    const std::lock_guard lock(mutex_);
    return failure_.kind != FailureKind::none;
  }

  // Until it is left out again, `listener` is told the failure, at once where there is one. It may be told twice.
  [[gnu::cold]] void tell_failures_to(FailureListener& listener) {
    {
      const std::lock_guard lock(listeners_mutex_);
      listeners_.push_back(&listener);
    }
    if (has_failed()) tell();
  }
  [[gnu::cold]] void leave_out(FailureListener& listener) {
    const std::lock_guard lock(listeners_mutex_);
    for (std::size_t i = listeners_.size(); i-- > 0;)
      if (listeners_[i] == &listener) listeners_.remove(i);
  }

  // The rank's function is over, in one way or another: nobody needs to wait for it.
  [[gnu::cold]] void depart(int world_rank) {
    rank(world_rank).departed.store(true);
    departures_.fetch_add(1);
    const std::lock_guard lock(mutex_);
    for (const auto& weak : gates_)
      if (const auto gate = weak.lock()) gate->notify_all();
  }
  bool departed(int world_rank) const { return ranks_[static_cast<std::size_t>(world_rank)].departed.load(); }
  int departures() const { return departures_.load(); }

  // An exception that left a rank's function. One thrown after the rank was told of another's failure is a
  // consequence, whatever its type: user code may have wrapped it.
  [[gnu::cold]] void record(int world_rank, std::exception_ptr exception) {
    const std::lock_guard lock(mutex_);
    std::exception_ptr& first = rank(world_rank).told ? first_consequence_ : first_original_;
    if (first == nullptr) first = std::move(exception);
  }
  [[gnu::cold]] std::exception_ptr first_exception() {
    const std::lock_guard lock(mutex_);
    return first_original_ != nullptr ? first_original_ : first_consequence_;
  }

 private:
  struct Rank {
    std::atomic<bool> departed{false};
    bool told = false;
  };

  Rank& rank(int r) { return ranks_[static_cast<std::size_t>(r)]; }

  [[gnu::cold]] void spread(Failure failure) {
    if (failure_.kind != FailureKind::none) return;
    failure_ = std::move(failure);
    for (const auto& weak : gates_)
      if (const auto gate = weak.lock()) {
        gate->word.fetch_or(GateWord::failed_bit);
        gate->notify_all();
      }
  }

  // Without mutex_: a listener may ask what the failure is.
  [[gnu::cold]] void tell() {
    const std::lock_guard lock(listeners_mutex_);
    if (listeners_.empty()) return;
    std::unique_lock asked(mutex_);
    const Failure failure = failure_;
    asked.unlock();
    for (FailureListener* const listener : listeners_) listener->found(failure);
  }

  std::mutex mutex_;
  std::mutex listeners_mutex_;  // held while they are told
  List<FailureListener*> listeners_;
  List<Rank> ranks_;
  const int size_;
  const Patience patience_;
  std::atomic<int> departures_{0};
  Failure failure_;
  List<WeakRef<ThreadGate>> gates_;
  std::exception_ptr first_original_;
  std::exception_ptr first_consequence_;
};
using ThreadWorld = BasicThreadWorld<>;

}  // namespace shardwise::detail
