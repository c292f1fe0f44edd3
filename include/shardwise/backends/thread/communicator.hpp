// ThreadCommunicator: ranks that are threads of this process and copy straight from each other's buffers.
// run_ranks makes one. Layer: backends/thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/backends/thread/group.hpp>
#include <shardwise/backends/thread/message.hpp>
#include <shardwise/backends/thread/posted.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/direct_collectives.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/handle.hpp>

namespace shardwise {

/// One rank of a group of threads. A handle: cheap to copy; one thread at a time may use it.
///
/// Every collective must be called by all ranks of the group, in the same order, with the same operation, element type
/// and counts. Sizes that do not fit on one rank are a ShapeError there, before anything happens. Otherwise a call
/// throws MismatchError, PeerFailedError or TimeoutError, on every rank that takes part, before data has
/// moved; afterwards every call on every group of the world throws the same. Reductions add in rank order: all
/// ranks get the same bits.
class ThreadCommunicator : public detail::CommunicatorHandle<ThreadCommunicator>,
                           public detail::DirectCollectives<ThreadCommunicator> {
 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  /// Checked and Traced (comm/decorators.hpp) add nothing.
  static constexpr bool compares_calls = true;
  static constexpr bool traces_calls = true;
  /// Inputs of at most this many bytes a rank may go through exchange_staged.
  static constexpr std::size_t staged_limit = detail::ThreadGroup::staged_limit;
  /// An exchange may write the outputs of other ranks.
  static constexpr bool writes_peers = true;

  ThreadCommunicator(detail::Ref<detail::ThreadGroup> group, int rank)
      : CommunicatorHandle(rank, detail::default_deadline()), group_(std::move(group)) {}

  using CommunicatorHandle::rank;
  int size() const { return group_->size; }
  const detail::Ref<detail::ThreadGroup>& group() const { return group_; }  // for the library's own layers
  /// The same on all ranks of the group, another for every group of the process.
  std::uint64_t id() const { return group_->id(); }

  // ---- the exchanges that everything else is made of ------------------------------------------------------------
  // (Templates where they need more than a few words: a unit that does not call one does not compile it.)

  /// Meets all ranks, then runs `body(Peers)` on each while all `in` may be read and all `out` written, and returns
  /// when all have finished. `body` must not throw.
  /// Ranks: all. Throws: MismatchError, PeerFailedError, TimeoutError, on all ranks, before any body.
  template <class = void>
  void exchange(const CallInfo& call, const void* in, std::size_t /*in_bytes*/, void* out, PeersFunction body) const {
    const std::uint32_t generation = group_->generation();
    group_->meet(me_, generation, call, in, out);
    const Leave<> leave{*group_};  // also when a trace listener throws: the others are reading
    tell(call);
    body(group_->peers(generation));
  }

  /// The same for inputs of at most staged_limit bytes on every rank: they are copied first, so that one
  /// synchronisation does. `in` is free on return; `Peers::out` is null.
  template <class = void>
  void exchange_staged(const CallInfo& call, const void* in, std::size_t in_bytes, PeersFunction body) const {
    SHARDWISE_REQUIRE(in_bytes <= staged_limit,
                      detail::text("shardwise::exchange_staged: ", in_bytes, " bytes are more than the ", staged_limit,
                                   " of a staged exchange"));
    const std::uint32_t generation = group_->generation();
    if (in_bytes > 0) std::memcpy(group_->staging(me_.rank, generation), in, in_bytes);
    group_->meet(me_, generation, call, nullptr, nullptr);
    tell(call);
    body(group_->staged_peers(generation));
  }

  /// An exchange in two halves. Making one offers `in` to the other ranks and returns at once; `finish(body)` waits until all
  /// have posted, and runs `body(Peers)` over their inputs. `in` is kept alive until all ranks have read it or dropped
  /// their end; it must not be written before `input_is_free()`. Several may be under way, other collectives between the
  /// halves: the k-th post of a rank belongs to the k-th of the others.
  /// Ranks: all post. Throws: as exchange, from `finish`, on the ranks that finish; after a failure from here too.
  using Posted = detail::ThreadPosted;
  template <class P = Posted>
  std::shared_ptr<P> post(const CallInfo& call, detail::Buffer in, std::size_t /*in_bytes*/) const {
    return detail::make_cached<P>(group_, me_, call, std::move(in));
  }

  /// Returns when `dest` has received. Ranks: this one, and `dest` with recv of the same type and size.
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    detail::require_peer("send", dest, rank(), size());
    const CallInfo call = call_info<T>(Collective::send, count(data), 0);
    detail::send_message(*group_, me_, dest, call, data.data());
    tell(call);
  }

  template <Element T>
  void recv(std::span<T> data, int source) const {
    detail::require_peer("recv", source, rank(), size());
    CallInfo call = call_info<T>(Collective::recv, count(data), count(data));
    call.root = source;
    detail::receive_message(*group_, me_, source, call, data.data(), data.size_bytes());
    tell(call);
  }

  /// Returns when all ranks have called it.
  template <class = void>
  void barrier() const {
    CallInfo call;
    call.collective = Collective::barrier;
    group_->meet(me_, group_->generation(), call, nullptr, nullptr);
  }

  /// A group for every color, its ranks ordered by key, then by rank here; nothing for a negative color. Label and
  /// deadline are inherited. Ranks: all.
  template <class Self = ThreadCommunicator, class Choice = detail::SplitChoice>
  [[gnu::cold]] std::optional<Self> split(int color, int key) const {
    const auto members = detail::split_members(exchange_choices<Choice>(color, key), color);
    // The first member makes the group, the others copy its handle.
    detail::Ref<detail::ThreadGroup> made, shared;
    if (!members.empty() && members[0] == rank()) {
      detail::List<int> world_ranks;
      for (const int r : members) world_ranks.push_back(group_->world_rank(r));
      made = detail::ThreadGroup::make(group_->shared_world(), std::move(world_ranks));
    }
    CallInfo call;
    call.collective = Collective::split;
    exchange(call, &made, sizeof(made), nullptr, [&](const Peers& peers) {
      if (!members.empty()) shared = *reinterpret_cast<const detail::Ref<detail::ThreadGroup>*>(peers.in[members[0]]);
    });
    if (shared == nullptr) return std::nullopt;
    std::size_t place = 0;
    while (members[place] != rank()) ++place;
    Self part = *this;
    part.group_ = std::move(shared);
    part.me_.rank = static_cast<int>(place);
    return part;
  }

  /// Tells all ranks of the world that this one gives up: what they wait for, and every later call, throws
  /// PeerFailedError with the reason.
  template <class = void>
  [[gnu::cold]] void abort(std::string reason) const {
    const int self = group_->world_rank(rank());
    group_->world().fail({detail::FailureKind::peer, detail::text("rank ", self, " aborted: ", reason), self});
  }

 private:
  friend class detail::DirectCollectives<ThreadCommunicator>;

  template <class = void>
  struct Leave {
    detail::ThreadGroup& group;
    ~Leave() { group.leave(); }
  };

  template <class = void>
  std::string rank_text(int r) const {
    return group_->rank_text(r);
  }
  template <class = void>
  [[noreturn, gnu::cold]] void fail(std::string mismatch) const {
    const detail::Failure failure{detail::FailureKind::mismatch, std::move(mismatch), group_->world_rank(rank())};
    group_->world().fail(failure);
    detail::throw_failure(failure, {});
  }

  detail::Ref<detail::ThreadGroup> group_;
};

}  // namespace shardwise
