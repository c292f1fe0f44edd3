// ThreadGroup: the shared state of the ranks of one communicator: how they meet, compare what they are about to do,
// and leave together. Knows no element types. Layer: backends/thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/thread/post_table.hpp>
#include <shardwise/backends/thread/world.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

// A message under way: on the stack of its sender, which stays until the receiver has it or it is withdrawn.
struct ThreadMessage {
  enum State : int { posted, delivered, refused };

  CallInfo call;
  const void* data;
  int source;
  ThreadMessage* next = nullptr;
  std::atomic<int> state{posted};
};

// The messages that wait for one rank. Taking one out, by the receiver or by a sender that gives up, decides whether
// it is delivered.
template <class Message = ThreadMessage>
class BasicThreadMailbox {
 public:
  void post(Message& message) {
    const std::lock_guard lock(mutex_);
    Message** at = &first_;
    while (*at != nullptr) at = &(*at)->next;
    *at = &message;
    posts_.fetch_add(1);
  }
  bool withdraw(Message& message) {
    return take_if([&](const Message& m) { return &m == &message; }) != nullptr;
  }
  Message* take_from(int source) {
    return take_if([&](const Message& m) { return m.source == source; });
  }
  std::uint32_t posts() const { return posts_.load(); }

 private:
  template <class Wanted>
  Message* take_if(Wanted wanted) {
    const std::lock_guard lock(mutex_);
    for (Message** at = &first_; *at != nullptr; at = &(*at)->next)
      if (wanted(**at)) {
        Message* message = *at;
        *at = message->next;
        return message;
      }
    return nullptr;
  }

  std::mutex mutex_;
  Message* first_ = nullptr;
  std::atomic<std::uint32_t> posts_{0};
};
using ThreadMailbox = BasicThreadMailbox<>;

template <class = void>
class BasicThreadGroup : public ThreadGate {
 public:
  static constexpr std::size_t staged_limit = 32 * 1024;

  [[gnu::cold]] BasicThreadGroup(Ref<ThreadWorld> world, List<int> world_ranks)
      : ThreadGate(static_cast<int>(world_ranks.size())), world_(std::move(world)),
        world_ranks_(std::move(world_ranks)), slots_(world_ranks_.size()), mailboxes_(world_ranks_.size()),
        in_(2 * world_ranks_.size()), out_(2 * world_ranks_.size()), staged_in_(2 * world_ranks_.size()),
        staging_(2 * world_ranks_.size() * staged_limit), posts_(size), id_(next_id()) {
    // The staging area is not initialised: pages that no staged exchange touches cost nothing.
    for (std::size_t i = 0; i < staged_in_.size(); ++i) staged_in_[i] = staging_.memory() + i * staged_limit;
  }

  [[gnu::cold]] static Ref<BasicThreadGroup> make(const Ref<ThreadWorld>& world, List<int> world_ranks) {
    auto group = make_ref<BasicThreadGroup>(world, std::move(world_ranks));
    world->add(group);
    return group;
  }

  std::uint64_t id() const { return id_; }
  ThreadWorld& world() const { return *world_; }
  const Ref<ThreadWorld>& shared_world() const { return world_; }
  int world_rank(int rank) const { return world_ranks_[static_cast<std::size_t>(rank)]; }
  const List<int>& world_ranks() const { return world_ranks_; }

  ThreadMailbox& mailbox(int rank) { return mailboxes_[static_cast<std::size_t>(rank)]; }
  WaitSignal& message_signal(int rank) { return messages[static_cast<std::size_t>(rank)]; }

  // The number of the call that this rank is about to make. It cannot change before this rank arrives.
  std::uint32_t generation() const { return GateWord::generation(word.load(std::memory_order_acquire)); }

  // Where a staged input of this rank goes. Two calls share a parity only if everyone has left the earlier one: the
  // call between them could not have completed otherwise. The same holds for the slots below.
  std::byte* staging(int rank, std::uint32_t generation) const {
    return staging_.memory() + (half(generation) + static_cast<std::size_t>(rank)) * staged_limit;
  }

  // Meets the other ranks. Throws on all of them or on none, before or instead of the data phase: MismatchError if
  // they call different things, or the failure of the world.
  void meet(const Caller& me, std::uint32_t generation, const CallInfo& call, const void* in, void* out) {
    const std::size_t r = static_cast<std::size_t>(me.rank);
    Slot& slot = slots_[r];
    slot.call[generation & 1u] = call;
    in_[half(generation) + r] = static_cast<const std::byte*>(in);
    out_[half(generation) + r] = static_cast<std::byte*>(out);
    slot.arrived.store(generation + 1u, std::memory_order_release);

    std::uint64_t seen = word.load(std::memory_order_acquire);
    std::uint64_t next = 0;
    do {
      if (GateWord::failed(seen)) [[unlikely]]
        throw_failure(me, call);
      next = GateWord::arrived(seen) + 1 == size ? GateWord::next_generation(seen) : seen + 1u;
    } while (!word.compare_exchange_weak(seen, next));
    if (GateWord::generation(next) != generation)
      signal.notify();
    else
      await(me, generation, call);
    if (size > 1)
      compare(me, [&](int rank) -> const CallInfo& {
        return slots_[static_cast<std::size_t>(rank)].call[generation & 1u];
      });
  }

  // Offers `in` without waiting; this rank's next offer is the next exchange. To be given back with `take`.
  PostedExchange& post(const Caller& me, const CallInfo& call, Buffer in) {
    if (failed()) [[unlikely]]
      throw_failure(me, call);
    posts_.sweep(me.rank);
    PostedExchange& exchange = posts_.post(me.rank, call, std::move(in));
    if (all_posted(exchange)) signal.notify();
    return exchange;
  }
  bool all_posted(const PostedExchange& exchange) const { return exchange.arrived.load() == size; }

  // Returns once all ranks have posted. Throws as `meet` does, but a rank that reads nothing yet is not told of it.
  void await_posts(const Caller& me, const PostedExchange& exchange, const CallInfo& call) {
    WaitLimit limit(me.deadline);
    int departures = 0;
    for (;;) {
      if (failed()) throw_failure(me, call);
      if (all_posted(exchange)) break;
      const auto changed = [&] { return all_posted(exchange) || failed() || world_->departures() != departures; };
      const bool came = signal.wait(changed, world_->patience(), limit);
      if (all_posted(exchange) || failed()) continue;
      const auto has_posted = [&](int r) { return exchange.posted[static_cast<std::size_t>(r)].load(); };
      if (!came) world_->fail(timed_out(me, call, missing_ranks(has_posted)));
      departures = world_->departures();
      for (int r = 0; r < size; ++r)  // in this order: a rank posts before it departs
        if (world_->departed(world_rank(r)) && !has_posted(r)) world_->fail(left_early(me, r));
    }
    compare(me, [&](int rank) -> const CallInfo& { return exchange.calls[static_cast<std::size_t>(rank)]; });
  }

  // This rank reads no more of it. Never waits.
  void take(int rank, PostedExchange& exchange) {
    if (posts_.take(rank, exchange)) signal.notify();
  }
  bool all_taken(std::uint64_t number) { return posts_.is_over(number); }

  // Returns once every rank has taken: what this one offered may be written.
  void await_takes(const Caller& me, std::uint64_t number, const CallInfo& call) {
    WaitLimit limit(me.deadline);
    while (!all_taken(number)) {
      if (failed()) throw_failure(me, call);
      if (!signal.wait([&] { return all_taken(number) || failed(); }, world_->patience(), limit) && !failed())
        world_->fail({FailureKind::timeout,
                      text("shardwise::", operation_text(call, me.axis), ": deadline of ", me.deadline.count(),
                           " ms passed on ", rank_text(me.rank), ", whose input is still to be read by other ranks"),
                      world_rank(me.rank)});
    }
    posts_.sweep(me.rank);
  }

  // Returns once every rank has called it. Cannot fail: all ranks that met come here.
  void leave() noexcept {
    if (size == 1) return;
    const std::uint32_t seen = exit_generation_.load();
    if (exits_.fetch_add(1) + 1 == size) {
      exits_.store(0);
      exit_generation_.store(seen + 1u);
      signal.notify();
    } else {
      signal.wait([&] { return exit_generation_.load() != seen; }, world_->patience());
    }
  }

  Peers peers(std::uint32_t generation) {
    return {size, in_.data() + half(generation), out_.data() + half(generation)};
  }
  Peers staged_peers(std::uint32_t generation) { return {size, staged_in_.data() + half(generation), nullptr}; }

  [[noreturn, gnu::noinline, gnu::cold]] void throw_failure(const Caller& me, const CallInfo& call) const {
    detail::throw_failure(world_->failure(world_rank(me.rank)), operation_text(call, me.axis));
  }

  std::string rank_text(int rank) const { return detail::rank_text(rank, world_rank(rank), size == world_->size()); }

  [[gnu::noinline, gnu::cold]] Failure left_early(const Caller& me, int rank) const {
    return {FailureKind::peer, text("rank ", world_rank(rank), " left early: its function has returned"),
            world_rank(me.rank)};
  }
  [[gnu::noinline, gnu::cold]] Failure timed_out(const Caller& me, const CallInfo& call,
                                                 const std::string& missing) const {
    return {FailureKind::timeout, timeout_text(me, call, rank_text(me.rank), missing), world_rank(me.rank)};
  }
  [[gnu::noinline, gnu::cold]] Failure mismatch(const Caller& me, int a, const CallInfo& call_a, int b,
                                                const CallInfo& call_b) const {
    return {FailureKind::mismatch, mismatch_text(me.axis, rank_text(a), call_a, rank_text(b), call_b),
            world_rank(me.rank)};
  }

 private:
  struct alignas(64) Slot {
    CallInfo call[2];                       // by parity of the generation
    std::atomic<std::uint32_t> arrived{0};  // the generation that this rank completes by coming
  };

  static std::uint64_t next_id() {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1) + 1;
  }

  std::size_t half(std::uint32_t generation) const { return (generation & 1u) * world_ranks_.size(); }

  bool has_arrived(int rank, std::uint32_t generation) const {
    return slots_[static_cast<std::size_t>(rank)].arrived.load(std::memory_order_acquire) == generation + 1u;
  }

  void await(const Caller& me, std::uint32_t generation, const CallInfo& call) {
    WaitLimit limit(me.deadline);
    int departures = 0;
    for (;;) {
      const auto decided = [&] {
        const std::uint64_t now = word.load(std::memory_order_acquire);
        return GateWord::generation(now) != generation || GateWord::failed(now);
      };
      const bool came =
          signal.wait([&] { return decided() || world_->departures() != departures; }, world_->patience(), limit);
      if (!came)
        world_->fail_unless_complete(
            *this, generation, timed_out(me, call, missing_ranks([&](int r) { return has_arrived(r, generation); })));
      departures = world_->departures();
      for (int r = 0; r < size && !decided(); ++r)
        // In this order: a rank arrives before it departs.
        if (world_->departed(world_rank(r)) && !has_arrived(r, generation))
          world_->fail_unless_complete(*this, generation, left_early(me, r));
      const std::uint64_t now = word.load(std::memory_order_acquire);
      if (GateWord::generation(now) != generation) return;
      if (GateWord::failed(now)) throw_failure(me, call);
    }
  }

  template <class Came>
  [[gnu::noinline, gnu::cold]] std::string missing_ranks(Came came) const {
    std::string missing;
    for (int r = 0; r < size; ++r)
      if (!came(r)) missing = text(missing, missing.empty() ? "" : ", ", rank_text(r));
    return missing;
  }

  [[noreturn, gnu::noinline, gnu::cold]] void refuse(const Failure& failure) {
    world_->fail(failure);
    detail::throw_failure(failure, {});
  }
  // Every rank looks at all calls, so all come to the same verdict.
  template <class Call>
  void compare(const Caller& me, Call call_of) {
    const CallInfo& first = call_of(0);
    for (int r = 1; r < size; ++r) {
      const CallInfo& other = call_of(r);
      if (!(first == other)) [[unlikely]] {
        refuse(mismatch(me, 0, first, r, other));
      }
    }
  }

  const Ref<ThreadWorld> world_;
  const List<int> world_ranks_;
  List<Slot> slots_;
  List<ThreadMailbox> mailboxes_;
  List<const std::byte*> in_;         // by parity, then rank
  List<std::byte*> out_;              // likewise
  List<const std::byte*> staged_in_;  // into staging_
  OwnBlock staging_;
  PostTable posts_;
  alignas(64) std::atomic<int> exits_{0};
  std::atomic<std::uint32_t> exit_generation_{0};
  const std::uint64_t id_;
};
using ThreadGroup = BasicThreadGroup<>;

}  // namespace shardwise::detail
