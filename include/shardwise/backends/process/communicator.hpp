// ProcessCommunicator: ranks that are processes. Those of one host read each other's tensors where they lie.
// from_env makes one. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/shared_group.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/direct_collectives.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise {

/// One rank of a group of processes. A handle: cheap to copy; one thread of the process at a time may use it and the other
/// handles of its world.
///
/// Collectives, their order and their errors are as ThreadCommunicator's, and so are the bits of a reduction: it adds in rank
/// order. Tensors made after the first communicator of the process lie in memory that the other ranks of the host read; other
/// memory is copied there first. No rank writes another's memory: one that was stopped and comes back late harms nobody.
class ProcessCommunicator : public detail::DirectCollectives<ProcessCommunicator> {
 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  /// Inputs of at most this many bytes a rank may go through exchange_staged.
  static constexpr std::size_t staged_limit = detail::SharedGroup::staged_limit;
  /// An exchange reads the other ranks' inputs, and leaves their outputs alone.
  static constexpr bool writes_peers = false;

  /// `world` is what the communicator keeps alive: its process' part in the world.
  ProcessCommunicator(std::shared_ptr<detail::SharedGroup> group, int rank, std::shared_ptr<void> world)
      : world_(std::move(world)), group_(std::move(group)), me_{rank, Name(), detail::default_deadline()} {}

  int rank() const { return me_.rank; }
  int size() const { return group_->size; }
  /// The same on all ranks of the group, another for every group of the world.
  std::uint64_t id() const { return group_->id(); }

  /// The label in errors and traces: a mesh axis.
  Name axis() const { return me_.axis; }
  ProcessCommunicator with_axis(Name axis) const {
    ProcessCommunicator c = *this;
    c.me_.axis = axis;
    return c;
  }

  /// How long a call waits for the other ranks.
  std::chrono::milliseconds deadline() const { return me_.deadline; }
  ProcessCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    ProcessCommunicator c = *this;
    c.me_.deadline = detail::checked_deadline(deadline);
    return c;
  }

  /// Meets all ranks, then runs `body(Peers)` on each while all `in` may be read, and returns when all have finished. `body`
  /// must not throw; `Peers::out` is null. An input outside the arena is copied into it first.
  /// Ranks: all. Throws: MismatchError, PeerFailedError, TimeoutError, on all ranks, before any body.
  void exchange(const CallInfo& call, const void* in, std::size_t in_bytes, void* out, PeersFunction body) const {
    group_->exchange(me_, call, in, in_bytes, out, [&](const Peers& peers) {
      tell(call);
      body(Peers{peers.size, peers.in, nullptr});
    });
  }

  /// The same for inputs of at most staged_limit bytes on every rank, with one meeting. `in` is free on return.
  void exchange_staged(const CallInfo& call, const void* in, std::size_t in_bytes, PeersFunction body) const {
    group_->exchange_staged(me_, call, in, in_bytes, [&](const Peers& peers) {
      tell(call);
      body(Peers{peers.size, peers.in, nullptr});
    });
  }

  /// Returns when `dest` has received. Ranks: this one, and `dest` with recv of the same type and size.
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    detail::require_peer("send", dest, rank(), size());
    const CallInfo call = call_info<T>(Collective::send, count(data), 0);
    group_->send(me_, dest, call, data.data(), data.size_bytes());
    tell(call);
  }

  template <Element T>
  void recv(std::span<T> data, int source) const {
    detail::require_peer("recv", source, rank(), size());
    CallInfo call = call_info<T>(Collective::recv, count(data), count(data));
    call.root = source;
    group_->recv(me_, source, call, data.data(), data.size_bytes());
    tell(call);
  }

  /// Returns when all ranks have called it.
  void barrier() const {
    CallInfo call;
    call.collective = Collective::barrier;
    group_->meet(me_, group_->generation(), call);
  }

  /// A group for every color, its ranks ordered by key, then by rank here; nothing for a negative color. Label and
  /// deadline are inherited. Ranks: all.
  std::optional<ProcessCommunicator> split(int color, int key) const {
    const std::vector<int> members = detail::split_members(exchange_choices(color, key), color);
    std::shared_ptr<detail::SharedGroup> group = group_->make_split(me_, members);
    if (group == nullptr) return std::nullopt;
    ProcessCommunicator part = *this;
    part.group_ = std::move(group);
    part.me_.rank = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
    return part;
  }

  /// Tells all ranks of the world that this one gives up: what they wait for, and every later call, throws
  /// PeerFailedError with the reason.
  void abort(std::string reason) const {
    const int self = group_->world_rank(rank());
    group_->fail({detail::FailureKind::peer, detail::text("rank ", self, " aborted: ", reason), self});
  }

 private:
  friend class detail::DirectCollectives<ProcessCommunicator>;

  void tell(const CallInfo& call) const {
    if (call.collective != Collective::split && call.bytes != CallInfo::part_of_another)
      detail::trace(call.collective, call.dtype, me_.axis.view(), call.bytes);
  }
  std::string rank_text(int r) const { return group_->rank_text(r); }
  [[noreturn]] void fail(std::string mismatch) const {
    const detail::Failure failure{detail::FailureKind::mismatch, std::move(mismatch), group_->world_rank(rank())};
    group_->fail(failure);
    detail::throw_failure(failure, {});
  }

  std::shared_ptr<void> world_;
  std::shared_ptr<detail::SharedGroup> group_;
  detail::Caller me_;
};

static_assert(DirectAccessCommunicator<ProcessCommunicator>);

}  // namespace shardwise
