// Exchanges that ranks enter and leave when they please: a rank posts its input and goes on; once all have posted, each
// reads what it wants, at a time of its own. Nobody waits for a reader. Layer: backends/thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/lean.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/call.hpp>

namespace shardwise::detail {

// One of them: what each rank offers, kept alive until all have read. The entries are written before `arrived` counts
// them, and not again before all ranks have taken.
struct PostedExchange {
  template <class = void>
  explicit PostedExchange(std::size_t ranks) : calls(ranks), held(ranks), in(ranks), posted(ranks) {}

  List<CallInfo> calls;
  List<Buffer> held;
  List<const std::byte*> in;
  List<std::atomic<bool>> posted;
  std::atomic<int> arrived{0};
  std::atomic<int> taken{0};
  std::uint64_t number = 0;
  int released = 0;
};

// The exchanges of a group that are under way. The k-th that a rank posts belongs to the k-th of each other rank, whatever
// else they do in between.
template <class = void>
class BasicPostTable {
 public:
  explicit BasicPostTable(int ranks) : next_(static_cast<std::size_t>(ranks)) {}

  PostedExchange& post(int rank, const CallInfo& call, Buffer in) {
    const std::size_t r = static_cast<std::size_t>(rank);
    const std::lock_guard lock(mutex_);
    if (!in) in = Buffer::view(nullptr);  // what is held says what is to be released
    PostedExchange& exchange = find_or_make(next_[r]);
    ++next_[r];
    exchange.calls[r] = call;
    exchange.in[r] = in.data();
    exchange.held[r] = std::move(in);
    exchange.posted[r].store(true);
    exchange.arrived.fetch_add(1);
    return exchange;
  }

  // `rank` reads no more. True where it was the last. What other ranks offered is theirs to release: each block goes back to
  // the cache that it came from.
  bool take(int rank, PostedExchange& exchange) {
    const bool last = exchange.taken.fetch_add(1) + 1 == static_cast<int>(next_.size());
    sweep(rank);
    return last;
  }

  // Releases what `rank` offered and everybody has read.
  void sweep(int rank) {
    const std::size_t r = static_cast<std::size_t>(rank);
    const int ranks = static_cast<int>(next_.size());
    for (;;) {
      Buffer freed;
      {
        const std::lock_guard lock(mutex_);
        std::size_t i = 0;
        while (i < open_.size() && !(open_[i]->taken.load() == ranks && open_[i]->held[r])) ++i;
        if (i == open_.size()) return;
        freed = taken(open_[i]->held[r]);
        if (++open_[i]->released == ranks) {
          free_.push_back(std::move(open_[i]));
          open_.remove(i);
        }
      }
    }
  }

  // Whether every rank has read the exchange of this number.
  bool is_over(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    for (const auto& exchange : open_)
      if (exchange->number == number) return exchange->taken.load() == static_cast<int>(next_.size());
    return true;
  }

 private:
  PostedExchange& find_or_make(std::uint64_t number) {
    for (const auto& exchange : open_)
      if (exchange->number == number) return *exchange;
    if (free_.empty()) {
      free_.reserve(free_.size() + open_.size() + 1);
      free_.push_back(make_ref<PostedExchange>(next_.size()));
    }
    open_.push_back(std::move(free_.back()));
    free_.pop_back();
    PostedExchange& exchange = *open_.back();
    for (auto& one : exchange.posted) one.store(false);
    exchange.arrived.store(0);
    exchange.taken.store(0);
    exchange.released = 0;
    exchange.number = number;
    return exchange;
  }

  std::mutex mutex_;
  List<std::uint64_t> next_;  // by rank: the number of its next post
  List<Ref<PostedExchange>> open_;
  List<Ref<PostedExchange>> free_;
};
using PostTable = BasicPostTable<>;

}  // namespace shardwise::detail
