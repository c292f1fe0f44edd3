// SharedHost: what a rank knows of the ranks of its host: the segment through which they meet, their arenas, whether they live,
// and what failed first. Layer: backends/process.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>

#include <shardwise/backends/process/arena.hpp>
#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/failure_board.hpp>
#include <shardwise/backends/process/lanes.hpp>
#include <shardwise/backends/process/own_process.hpp>
#include <shardwise/backends/process/segment.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/gate_word.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

// The part of a group that a failure must reach.
struct SharedGate {
  SharedGate(SharedPart& p, int ranks) : part(p), size(ranks) {}

  bool failed() const { return GateWord::failed(part.word.load(std::memory_order_acquire)); }
  void poison() noexcept {
    part.word.fetch_or(GateWord::failed_bit);
    notify_all();
  }
  void notify_all() noexcept {
    part.signal.notify();
    for (int r = 0; r < size; ++r) part.slots()[r].message_signal.notify();
  }

  SharedPart& part;
  const int size;
};

// Memory that a rank has posted, kept until all ranks of the group have read it, whatever becomes of the group here.
struct SharedHeld {
  Buffer memory;
  std::uint64_t part_at;
  std::uint64_t group;
  std::uint64_t number;
  int ranks;

  // Nobody reads it any more. After a failure nobody trusts what he reads.
  bool is_done(SegmentHeader& segment) const {
    SharedPart& part = segment.part(part_at);
    return segment.failure.any() || part.id != group || part.all_taken(ranks, group, number);
  }
};

// And whatever becomes of the world here: others may come for what it posted after it has left. Used by one thread.
class LeftBehind {
 public:
  static void add(Mapping segment, std::vector<SharedHeld> held) {
    all().push_back({std::move(segment), std::move(held)});
  }
  static void sweep() {
    for (LeftBehind& world : all()) {
      if (!world.process_.here()) continue;  // a forked child has no segment
      SegmentHeader& segment = *reinterpret_cast<SegmentHeader*>(world.segment_.data());
      std::erase_if(world.held_, [&](const SharedHeld& h) { return h.is_done(segment); });
    }
    std::erase_if(all(), [](const LeftBehind& world) { return world.held_.empty(); });
  }

 private:
  LeftBehind(Mapping segment, std::vector<SharedHeld> held) : segment_(std::move(segment)), held_(std::move(held)) {}
  static std::vector<LeftBehind>& all() {
    static auto& worlds = *new std::vector<LeftBehind>();  // outlives every thread's cache of blocks
    return worlds;
  }

  Mapping segment_;
  std::vector<SharedHeld> held_;
  OwnProcess process_;
};

// Ranks of the host are counted from 0 here, in the order of their world ranks.
class SharedHost {
 public:
  struct Rank {
    int world_rank;
    PeerArena arena;  // nothing for this rank
    Descriptor lifeline;  // readable once the process has ended; none where the system has no such thing
  };

  SharedHost(Arena& arena, Mapping segment, std::vector<Rank> ranks, int self, int world_size)
      : arena_(arena), segment_(std::move(segment)), ranks_(std::move(ranks)), self_(self), world_size_(world_size),
        patience_(patience_for(static_cast<int>(ranks_.size()))) {
    LeftBehind::sweep();
  }
  ~SharedHost() {
    if (!in_own_process()) return;
    sweep();
    if (!held_.empty()) LeftBehind::add(std::move(segment_), std::move(held_));
  }
  SharedHost(const SharedHost&) = delete;
  SharedHost& operator=(const SharedHost&) = delete;

  int size() const { return static_cast<int>(ranks_.size()); }
  int self() const { return self_; }
  int world_size() const { return world_size_; }
  int world_rank(int r) const { return rank(r).world_rank; }
  Patience patience() const { return patience_; }
  // A forked child has no segment.
  bool in_own_process() const { return process_.here(); }
  Arena& arena() const { return arena_; }
  SegmentHeader& header() const { return *reinterpret_cast<SegmentHeader*>(segment_.data()); }
  std::byte* segment() const { return segment_.data(); }
  // In worlds of several hosts.
  SharedLanes lanes() const { return {segment_.data() + header().lanes, size()}; }

  // Where this process finds what rank r offers; null for nothing.
  const std::byte* find(int r, const SharedOffer& offer) const {
    if (offer.place == SharedOffer::segment) return segment_.data() + offer.offset;
    if (offer.place == SharedOffer::nowhere) return nullptr;
    return (r == self_ ? arena_.at(0) : rank(r).arena.data()) + offer.offset;
  }

  // ---- failures ---------------------------------------------------------------------------------------------------

  // Called with what this process finds wrong. Set before anything communicates.
  void set_listener(FailureListener* listener) { listener_.store(listener); }

  void add(const std::shared_ptr<SharedGate>& gate) {
    const std::lock_guard lock(mutex_);
    gates_.erase(std::remove_if(gates_.begin(), gates_.end(), [](const auto& g) { return g.expired(); }), gates_.end());
    gates_.push_back(gate);
  }

  bool failed() const { return header().failure.any(); }

  // The first failure stays; it stops every group of the host. At once those that this process is in; the others when their
  // ranks look up, which they do every 100 ms.
  void fail(const Failure& failure) {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = header().failure.set(failure);
      spread();
    }
    if (FailureListener* const listener = listener_.load(); first && listener != nullptr) listener->found(failure);
  }

  // Fails unless `gate` has completed generation `generation` or failed meanwhile: in either case its word says so.
  void fail_unless_complete(SharedGate& gate, std::uint32_t generation, const Failure& failure) {
    std::uint64_t word = gate.part.word.load();
    do {
      if (GateWord::generation(word) != generation || GateWord::failed(word)) return;
    } while (!gate.part.word.compare_exchange_weak(word, word | GateWord::failed_bit));
    fail(failure);
  }

  // What stopped a gate that has failed. Whoever set its bit writes the words next.
  Failure failure() {
    for (int i = 0; i < 500 && !failed(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    {
      const std::lock_guard lock(mutex_);
      spread();
    }
    return header().failure.get();
  }

  // ---- what the others may still read --------------------------------------------------------------------------------

  // Until all have read it: `sweep` says.
  void hold(SharedHeld held) { held_.push_back(std::move(held)); }
  void sweep() {
    std::erase_if(held_, [&](const SharedHeld& h) { return h.is_done(header()); });
  }

  // ---- who is there -----------------------------------------------------------------------------------------------

  // This rank's program is over: nobody needs to wait for it.
  void depart() {
    header().departed[self_].store(true);
    header().departures.fetch_add(1);
    const std::lock_guard lock(mutex_);
    for (const auto& weak : gates_)
      if (const auto gate = weak.lock()) gate->notify_all();
  }
  bool departed(int r) const { return header().departed[r].load(); }
  std::uint32_t departures() const { return header().departures.load(); }

  // The process has ended. Asks the system.
  bool dead(int r) const {
    if (r == self_ || !rank(r).lifeline) return false;
    pollfd one{rank(r).lifeline.get(), POLLIN, 0};
    return poll(&one, 1, 0) == 1;
  }

 private:
  const Rank& rank(int r) const { return ranks_[static_cast<std::size_t>(r)]; }

  void spread() {
    if (std::exchange(spread_, true)) return;
    for (const auto& weak : gates_)
      if (const auto gate = weak.lock()) gate->poison();
  }

  Arena& arena_;
  Mapping segment_;
  const std::vector<Rank> ranks_;
  const int self_;
  const int world_size_;
  const Patience patience_;
  std::atomic<FailureListener*> listener_{nullptr};
  std::mutex mutex_;
  std::vector<std::weak_ptr<SharedGate>> gates_;
  bool spread_ = false;
  std::vector<SharedHeld> held_;  // used by one thread
  OwnProcess process_;
};

}  // namespace shardwise::detail
