// SharedGroup: the shared state of the ranks of one communicator whose ranks are processes of one host: how they meet, compare
// what they are about to do, read each other's memory, and leave together. Knows no element types. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/segment.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/gate_word.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

// One thread of the process at a time may use it. A rank writes its own slot and nothing else of the others' but counters: one
// that was stopped, and comes back after the others have given up, harms nobody. It learns of it before it uses what it read.
class SharedGroup : public SharedGate {
 public:
  // Inputs of at most this many bytes go through a copy in the segment: one meeting instead of two.
  static constexpr std::size_t staged_limit = 32 * 1024;
  // So much fits there: for inputs that are private to a process, piece by piece.
  static constexpr std::size_t piece_limit = SharedPart::copy_bytes;

  // The group of all ranks of the host. One at a time is used of those that this gives.
  static std::shared_ptr<SharedGroup> of_host(const std::shared_ptr<SharedHost>& host) {
    std::vector<int> all;
    for (int r = 0; r < host->size(); ++r) all.push_back(r);
    host->header().part(SegmentHeader::first_part()).users.fetch_add(1);  // may be asked for again: its part stays
    return join(host, SegmentHeader::first_part(), std::move(all));
  }

  // A group of some ranks of the host, the caller among them. One of them makes it, and tells the others the number that this
  // gives; all of them join, with the same ranks in the same order (places among the ranks of the host).
  static std::uint64_t make(SharedHost& host, int ranks) {
    const std::uint64_t part = host.header().make_part(ranks);
    SHARDWISE_REQUIRE(part != 0, text("shardwise: no room in ", host.header().bytes >> 20, " MiB for another group of ",
                                      ranks, " ranks; drop communicators that are done"));
    return part;
  }
  static std::shared_ptr<SharedGroup> join(const std::shared_ptr<SharedHost>& host, std::uint64_t part,
                                           std::vector<int> host_ranks) {
    auto group = std::make_shared<SharedGroup>(host, part, std::move(host_ranks));
    host->add(group);
    return group;
  }

  SharedGroup(std::shared_ptr<SharedHost> host, std::uint64_t part_at, std::vector<int> host_ranks)
      : SharedGate(host->header().part(part_at), static_cast<int>(host_ranks.size())), host_(std::move(host)),
        host_ranks_(std::move(host_ranks)), part_at_(part_at), copies_at_(part_at + SharedPart::copies_at(size)),
        in_(host_ranks_.size(), nullptr), out_(host_ranks_.size(), nullptr) {}
  SharedGroup(const SharedGroup&) = delete;
  SharedGroup& operator=(const SharedGroup&) = delete;
  ~SharedGroup() {
    if (host_->in_own_process()) host_->header().drop_part(part_at_);
  }

  // Groups of other hosts count from 1 too.
  std::uint64_t id() const { return part.id + (static_cast<std::uint64_t>(host_->world_rank(0)) << 40); }
  SharedHost& host() const { return *host_; }
  const std::shared_ptr<SharedHost>& shared_host() const { return host_; }
  int host_rank(int rank) const { return host_ranks_[static_cast<std::size_t>(rank)]; }
  int world_rank(int rank) const { return host_->world_rank(host_rank(rank)); }

  std::string rank_text(int rank) const {
    return detail::rank_text(rank, world_rank(rank), size == host_->world_size());
  }

  // All groups of the host stop with it.
  void fail(const Failure& failure) const { host_->fail(failure); }
  [[noreturn, gnu::noinline, gnu::cold]] void throw_failure(const Caller& me, const CallInfo& call) const {
    detail::throw_failure(host_->failure(), operation_text(call, me.axis));
  }

  // ---- the exchanges ----------------------------------------------------------------------------------------------

  // Meets all ranks, then runs `body` on each while all `in` may be read, and returns when all have finished. What lies in the
  // arena is read where it is; other memory is copied there first, and read there. Peers::out holds `out` for this rank, null
  // pointers for the others. Throws: MismatchError, PeerFailedError, TimeoutError; before any body, or, where a rank is
  // lost in the middle, after it.
  void exchange(const Caller& me, const CallInfo& call, const void* in, std::size_t in_bytes, void* out,
                PeersFunction body) {
    const std::uint32_t now = generation();
    const Buffer staged = size > 1 ? offer(slot(me.rank).in[now & 1u], in, in_bytes) : Buffer();
    meet(me, now, call);
    find_inputs(now);
    in_[static_cast<std::size_t>(me.rank)] = static_cast<const std::byte*>(in);
    out_[static_cast<std::size_t>(me.rank)] = static_cast<std::byte*>(out);
    try {
      body(Peers{size, in_.data(), out_.data()});
    } catch (...) {  // a listener's: the others are reading all the same
      try {
        leave(me, now, call);
      } catch (const CommError&) {
      }
      throw;
    }
    leave(me, now, call);
  }

  // The same for inputs of at most piece_limit bytes on every rank, which are copied into the segment first, so that one
  // meeting does: `in` is free on return. Peers::out holds null pointers.
  // Two calls share a parity only if everyone has left the earlier one: the call between them could not have completed otherwise.
  void exchange_staged(const Caller& me, const CallInfo& call, const void* in, std::size_t in_bytes,
                       PeersFunction body) {
    SHARDWISE_REQUIRE(in_bytes <= piece_limit, text("shardwise::exchange_staged: ", in_bytes,
                                                    " bytes are more than the ", piece_limit, " of a staged exchange"));
    const std::uint32_t now = generation();
    const std::uint64_t copy = copy_at(me.rank, now & 1u);
    if (in_bytes > 0) std::memcpy(host_->segment() + copy, in, in_bytes);
    slot(me.rank).in[now & 1u] = {SharedOffer::segment, copy};
    meet(me, now, call);
    find_inputs(now);
    out_[static_cast<std::size_t>(me.rank)] = nullptr;
    body(Peers{size, in_.data(), out_.data()});
  }

  // Groups of some of these ranks: `members`, in the order that they have there, the same on all of them; empty on a rank that
  // is in none. Ranks: all of this group.
  std::shared_ptr<SharedGroup> make_split(const Caller& me, const std::vector<int>& members) {
    CallInfo call;
    call.collective = Collective::split;
    std::uint64_t made = 0, part_of_mine = 0;
    if (!members.empty() && members[0] == me.rank) made = make(*host_, static_cast<int>(members.size()));
    exchange_staged(me, call, &made, sizeof made, [&](const Peers& peers) {
      if (!members.empty()) std::memcpy(&part_of_mine, peers.in[members[0]], sizeof part_of_mine);
    });
    if (members.empty()) return nullptr;
    std::vector<int> host_ranks;
    for (const int r : members) host_ranks.push_back(host_rank(r));
    return join(host_, part_of_mine, std::move(host_ranks));
  }

  // ---- what they are made of --------------------------------------------------------------------------------------

  // The number of the call that this rank is about to make. It cannot change before this rank arrives.
  std::uint32_t generation() const { return GateWord::generation(part.word.load(std::memory_order_acquire)); }

  // Meets the other ranks. Throws on all of them or on none, before or instead of the data phase: MismatchError if
  // they call different things, or the failure of the host.
  void meet(const Caller& me, std::uint32_t generation, const CallInfo& call) {
    SharedSlot& mine = slot(me.rank);
    mine.call[generation & 1u] = call;
    mine.arrived.store(generation + 1u, std::memory_order_release);

    std::uint64_t seen = part.word.load(std::memory_order_acquire);
    if (host_->failed()) [[unlikely]]
      seen |= part.word.fetch_or(GateWord::failed_bit) | GateWord::failed_bit;
    std::uint64_t next = 0;
    do {
      if (GateWord::failed(seen)) [[unlikely]]
        throw_failure(me, call);
      next = GateWord::arrived(seen) + 1 == size ? GateWord::next_generation(seen) : seen + 1u;
    } while (!part.word.compare_exchange_weak(seen, next));
    if (GateWord::generation(next) != generation)
      part.signal.notify();
    else
      await_others(me, generation, call);
    if (size > 1) compare(me, [&](int r) -> const CallInfo& { return slot(r).call[generation & 1u]; });
  }

  // Returns once every rank has called it. A rank that comes after the others gave up must not trust what it read.
  void leave(const Caller& me, std::uint32_t generation, const CallInfo& call) {
    if (size == 1) return;
    const std::uint32_t seen = part.exit_generation.load();
    if (failed() || host_->failed()) [[unlikely]]
      throw_failure(me, call);
    slot(me.rank).left.store(generation + 1u, std::memory_order_release);
    if (part.exits.fetch_add(1) + 1 == size) {
      part.exits.store(0);
      part.exit_generation.fetch_add(1);
      part.signal.notify();
      return;
    }
    const auto all_left = [&] { return part.exit_generation.load() != seen; };
    const auto has_left = [&](int r) { return slot(r).left.load(std::memory_order_acquire) == generation + 1u; };
    await(me, call, part.signal, all_left, has_left, [&](const Failure& failure) { host_->fail(failure); });
  }

  // ---- exchanges in two halves ------------------------------------------------------------------------------------

  // Offers `in` without waiting; this rank's next offer is the next exchange, whatever it does in between. Gives its number.
  // The memory is kept until all have read it; the caller's own is copied, and free on return.
  std::uint64_t post(const Caller& me, const CallInfo& call, Buffer in, std::size_t in_bytes) {
    if (failed() || host_->failed()) throw_failure(me, call);
    host_->sweep();
    const std::uint64_t number = slot(me.rank).posts;
    SHARDWISE_REQUIRE(number < SharedPart::most_posts || all_taken(number - SharedPart::most_posts),
                      text("shardwise: more than ", SharedPart::most_posts, " exchanges of one group are under way"));
    SharedPost& mine = part.post(size, me.rank, number);
    Buffer copy = offer(mine.in, in.data(), in_bytes);
    if (failed()) throw_failure(me, call);
    mine.call = call;
    mine.posted.store(SharedPost::mark(part.id, number));
    ++slot(me.rank).posts;
    host_->hold({copy ? std::move(copy) : std::move(in), part_at_, part.id, number, size});
    if (all_posted(number)) part.signal.notify();
    return number;
  }
  bool all_posted(std::uint64_t number) const {
    for (int r = 0; r < size; ++r)
      if (!has_posted(r, number)) return false;
    return true;
  }

  // Waits until all have posted, then runs `body` over their inputs. Throws as `exchange` does; to be called once, or again
  // after it has thrown.
  void finish(const Caller& me, const CallInfo& call, std::uint64_t number, PeersFunction body) {
    await(
        me, call, part.signal, [&] { return all_posted(number); }, [&](int r) { return has_posted(r, number); },
        [&](const Failure& failure) { host_->fail(failure); });
    if (failed() || host_->failed()) throw_failure(me, call);
    compare(me, [&](int r) -> const CallInfo& { return part.post(size, r, number).call; });
    for (int r = 0; r < size; ++r)
      in_[static_cast<std::size_t>(r)] = host_->find(host_rank(r), part.post(size, r, number).in);
    std::fill(out_.begin(), out_.end(), nullptr);
    body(Peers{size, in_.data(), out_.data()});
    if (failed() || host_->failed()) throw_failure(me, call);  // what was read may have been anything
  }

  // This rank reads no more of it. Never waits.
  void take(const Caller& me, std::uint64_t number) {
    if (!host_->in_own_process()) return;
    part.post(size, me.rank, number).taken.store(SharedPost::mark(part.id, number));
    if (all_taken(number)) part.signal.notify();
    host_->sweep();
  }
  bool all_taken(std::uint64_t number) const { return part.all_taken(size, part.id, number); }

  // Returns once every rank has taken it.
  void await_takes(const Caller& me, const CallInfo& call, std::uint64_t number) {
    const auto has_taken = [&](int r) {
      return SharedPost::reached(part.post(size, r, number).taken, SharedPost::mark(part.id, number));
    };
    await(
        me, call, part.signal, [&] { return all_taken(number); }, has_taken,
        [&](const Failure& failure) { host_->fail(failure); });
    host_->sweep();
  }

  // ---- messages ---------------------------------------------------------------------------------------------------

  // Returns when `dest` has taken the bytes.
  void send(const Caller& me, int dest, const CallInfo& call, const void* data, std::size_t bytes) {
    if (failed() || host_->failed()) throw_failure(me, call);
    SharedSlot& mine = slot(me.rank);
    const Buffer staged = offer_message(me.rank, data, bytes);
    mine.message_call = call;
    mine.message.store(message_word(dest, posted));
    slot(dest).message_signal.notify();

    const auto finished = [&] {
      const std::uint64_t word = mine.message.load();
      return word == message_word(dest, delivered) || word == message_word(dest, refused);
    };
    try {
      await(
          me, call, mine.message_signal, finished, [&](int r) { return r != dest; },
          [&](const Failure& failure) { host_->fail(failure); });
    } catch (...) {
      // Whoever is still copying finds that nobody vouches for the bytes.
      if (mine.message.exchange(message_word(dest, withdrawn)) != message_word(dest, delivered)) throw;
      return;
    }
    if (mine.message.load() == message_word(dest, refused)) throw_failure(me, call);
  }

  // Returns with the bytes of the message that `source` sends to this rank.
  void recv(const Caller& me, int source, const CallInfo& call, void* data, std::size_t bytes) {
    if (failed() || host_->failed()) throw_failure(me, call);
    SharedSlot& from = slot(source);
    const auto is_posted = [&] { return from.message.load() == message_word(me.rank, posted); };
    await(
        me, call, slot(me.rank).message_signal, is_posted, [&](int r) { return r != source; },
        [&](const Failure& failure) { host_->fail(failure); });
    std::uint64_t word = message_word(me.rank, posted);
    if (!from.message.compare_exchange_strong(word, message_word(me.rank, taken))) throw_failure(me, call);
    const CallInfo sent = from.message_call;
    const bool same = sent.dtype == call.dtype && sent.shape == call.shape;
    if (same && bytes > 0) std::memcpy(data, host_->find(host_rank(source), from.message_data), bytes);
    if (!same) host_->fail(mismatch(me, source, sent, me.rank, call));
    word = message_word(me.rank, taken);
    const bool vouched = from.message.compare_exchange_strong(word, message_word(me.rank, same ? delivered : refused));
    from.message_signal.notify();
    if (!same || !vouched) throw_failure(me, call);
  }

  // ---- what went wrong --------------------------------------------------------------------------------------------

  [[gnu::cold]] Failure left_early(const Caller& me, int rank) const {
    return {FailureKind::peer, text("rank ", world_rank(rank), " left early: its program has ended"),
            world_rank(me.rank)};
  }
  [[gnu::cold]] Failure died(const Caller& me, int rank) const {
    return {FailureKind::peer, text("rank ", world_rank(rank), " died: its process ended without a word"),
            world_rank(me.rank)};
  }
  [[gnu::cold]] Failure timed_out(const Caller& me, const CallInfo& call, const std::string& missing) const {
    return {FailureKind::timeout, timeout_text(me, call, rank_text(me.rank), missing), world_rank(me.rank)};
  }
  [[gnu::cold]] Failure mismatch(const Caller& me, int a, const CallInfo& call_a, int b, const CallInfo& call_b) const {
    return {FailureKind::mismatch, mismatch_text(me.axis, rank_text(a), call_a, rank_text(b), call_b),
            world_rank(me.rank)};
  }

 private:
  enum MessageState : std::uint64_t { nothing, posted, taken, delivered, refused, withdrawn };
  static std::uint64_t message_word(int dest, MessageState state) {
    return (static_cast<std::uint64_t>(dest) << 8) | state;
  }

  SharedSlot& slot(int rank) const { return part.slots()[rank]; }

  // Where copies of a rank's inputs go: 0 and 1 by parity, 2 for its message.
  std::uint64_t copy_at(int rank, std::uint32_t which) const {
    return copies_at_ + (which * static_cast<std::uint64_t>(size) + static_cast<std::uint64_t>(rank)) * piece_limit;
  }

  // Memory that the others cannot reach is copied to where they can: what holds the copy must live until they have read it. As a whole:
  // S0->S1 of 64 MiB by 4 ranks on 2 busy cores takes 1.5 to 1.8 copies, in pieces of 4 MiB down to 256 KiB, with a meeting each,
  // 2.1 to 10.
  Buffer offer(SharedOffer& where, const void* in, std::size_t bytes) const {
    Arena& arena = host_->arena();
    where = {};
    if (in == nullptr || bytes == 0) return {};
    if (arena.contains(in)) {
      where = {SharedOffer::arena, arena.offset_of(in)};
      return {};
    }
    Buffer copy(bytes);
    if (!arena.contains(copy.data())) [[unlikely]] {  // the meeting throws, on all ranks
      const int self = host_->world_rank(host_->self());
      host_->fail({FailureKind::peer,
                   text("rank ", self, " has no room for ", bytes, " bytes in the ", arena.reserve() >> 20,
                        " MiB of memory that it shares"),
                   self});
      return {};
    }
    if (bytes >= streamed_bytes)
      stream_copy(copy.data(), in, bytes), stream_fence();
    else
      std::memcpy(copy.data(), in, bytes);
    where = {SharedOffer::arena, arena.offset_of(copy.data())};
    return copy;
  }
  Buffer offer_message(int rank, const void* data, std::size_t bytes) const {
    SharedOffer& where = slot(rank).message_data;
    if (bytes > staged_limit || bytes == 0) return offer(where, data, bytes);
    where = {SharedOffer::segment, copy_at(rank, 2)};
    std::memcpy(host_->segment() + where.offset, data, bytes);
    return {};
  }

  void find_inputs(std::uint32_t generation) {
    for (int r = 0; r < size; ++r)
      in_[static_cast<std::size_t>(r)] = host_->find(host_rank(r), slot(r).in[generation & 1u]);
  }

  bool has_arrived(int rank, std::uint32_t generation) const {
    return slot(rank).arrived.load(std::memory_order_acquire) == generation + 1u;
  }

  void await_others(const Caller& me, std::uint32_t generation, const CallInfo& call) {
    const auto complete = [&] { return GateWord::generation(part.word.load(std::memory_order_acquire)) != generation; };
    await(
        me, call, part.signal, complete, [&](int r) { return has_arrived(r, generation); },
        [&](const Failure& failure) { host_->fail_unless_complete(*this, generation, failure); });
  }

  // Returns once done(). Looks up every 100 ms, whoever wakes it: has a rank died, has another group failed? Whom it waits
  // for: those that have not come. `give_up(failure)` fails the host, unless it is done after all.
  template <class Done, class Came, class GiveUp>
  void await(const Caller& me, const CallInfo& call, SharedWaitSignal& signal, Done done, Came came, GiveUp give_up) {
    if (done()) return;
    constexpr auto look = std::chrono::milliseconds(100);
    WaitLimit limit(me.deadline);
    std::uint32_t departures = 0;
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(limit.left());
      WaitLimit slice(std::max(std::min(left, std::chrono::milliseconds(look)), std::chrono::milliseconds(0)));
      const auto changed = [&] { return done() || failed() || host_->departures() != departures; };
      const bool woken = signal.wait(changed, host_->patience(), slice);
      if (done()) return;
      if (!failed() && host_->failed()) {
        part.word.fetch_or(GateWord::failed_bit);
        if (done()) return;
      }
      if (failed()) throw_failure(me, call);
      departures = host_->departures();
      for (int r = 0; r < size && !failed();
           ++r) {  // in this order: a rank comes before it departs, departs before it ends
        const bool ended = !woken && host_->dead(host_rank(r));
        const bool departed = host_->departed(host_rank(r));
        if (came(r)) continue;
        if (departed || ended) give_up(departed ? left_early(me, r) : died(me, r));
      }
      if (left.count() <= 0 && !failed()) give_up(timed_out(me, call, missing_ranks(came)));
      if (done()) return;
      if (failed()) throw_failure(me, call);
    }
  }

  template <class Came>
  std::string missing_ranks(Came came) const {
    std::string missing;
    for (int r = 0; r < size; ++r)
      if (!came(r)) missing = text(missing, missing.empty() ? "" : ", ", rank_text(r));
    return missing;
  }

  bool has_posted(int rank, std::uint64_t number) const {
    return SharedPost::reached(part.post(size, rank, number).posted, SharedPost::mark(part.id, number));
  }

  // Every rank looks at all calls, so all come to the same verdict.
  template <class Call>
  void compare(const Caller& me, Call call_of) const {
    const CallInfo& first = call_of(0);
    for (int r = 1; r < size; ++r) {
      if (first == call_of(r)) [[likely]]
        continue;
      const Failure failure = mismatch(me, 0, first, r, call_of(r));
      host_->fail(failure);
      detail::throw_failure(failure, {});
    }
  }

  const std::shared_ptr<SharedHost> host_;
  const std::vector<int> host_ranks_;
  const std::uint64_t part_at_;
  const std::uint64_t copies_at_;
  std::vector<const std::byte*> in_;
  std::vector<std::byte*> out_;
};

}  // namespace shardwise::detail
