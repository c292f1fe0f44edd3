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
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/backends/process/message_group.hpp>
#include <shardwise/backends/process/shared_group.hpp>
#include <shardwise/backends/process/shared_posted.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/direct_collectives.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/handle.hpp>
#include <shardwise/comm/message_collectives.hpp>

namespace shardwise {

/// One rank of a group of processes. A handle: cheap to copy; one thread of the process at a time may use it and the other
/// handles of its world.
///
/// Collectives, their order and their errors are as ThreadCommunicator's, and so are the bits of a reduction: it adds in rank
/// order. Tensors made after the first communicator of the process lie in memory that the other ranks of the host read; other
/// memory is copied there first. No rank writes another's memory: one that was stopped and comes back late harms nobody.
/// The ranks of a group that is not all on one host send each other messages, within a host through the memory that it shares; its
/// splits whose ranks are all on one host read each other's memory again.
class ProcessCommunicator : public detail::CommunicatorHandle<ProcessCommunicator>,
                            private detail::DirectCollectives<ProcessCommunicator>,
                            private detail::MessageCollectives<ProcessCommunicator> {
  using Direct = detail::DirectCollectives<ProcessCommunicator>;
  using Messages = detail::MessageCollectives<ProcessCommunicator>;

 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  /// Checked and Traced (comm/decorators.hpp) add nothing.
  static constexpr bool compares_calls = true;
  static constexpr bool traces_calls = true;
  /// Inputs of at most this many bytes a rank may go through exchange_staged.
  static constexpr std::size_t staged_limit = detail::SharedGroup::staged_limit;
  /// An exchange reads the other ranks' inputs, and leaves their outputs alone.
  static constexpr bool writes_peers = false;

  /// `world` is what the communicator keeps alive: its process' part in the world.
  ProcessCommunicator(std::shared_ptr<detail::SharedGroup> group, int rank, std::shared_ptr<void> world)
      : CommunicatorHandle(rank, detail::default_deadline()), world_(std::move(world)), group_(std::move(group)) {}
  ProcessCommunicator(std::shared_ptr<detail::MessageGroup> group, int rank, std::shared_ptr<void> world)
      : CommunicatorHandle(rank, detail::default_deadline()), world_(std::move(world)), messages_(std::move(group)) {}

  using CommunicatorHandle::rank;
  int size() const { return direct() ? group_->size : messages_->size(); }
  /// Its ranks read each other's memory: they are all on one host.
  bool direct() const { return group_ != nullptr; }
  /// The same on all ranks of the group, another for every group of the world.
  std::uint64_t id() const { return direct() ? group_->id() : messages_->id(); }

  /// Meets all ranks, then runs `body(Peers)` on each while all `in` may be read, and returns when all have finished. `body`
  /// must not throw; `Peers::out` is null. An input outside the arena is copied into it first.
  /// Ranks: all. Throws: MismatchError, PeerFailedError, TimeoutError, on all ranks, before any body.
  void exchange(const CallInfo& call, const void* in, std::size_t in_bytes, void* out, PeersFunction body) const {
    if (!direct()) return exchange_whole(call, in, in_bytes, body);
    group_->exchange(me_, call, in, in_bytes, out, [&](const Peers& peers) {
      tell(call);
      body(Peers{peers.size, peers.in, nullptr});
    });
  }

  /// The same for inputs of at most staged_limit bytes on every rank, with one meeting. `in` is free on return.
  void exchange_staged(const CallInfo& call, const void* in, std::size_t in_bytes, PeersFunction body) const {
    if (!direct()) return exchange_whole(call, in, in_bytes, body);
    group_->exchange_staged(me_, call, in, in_bytes, [&](const Peers& peers) {
      tell(call);
      body(Peers{peers.size, peers.in, nullptr});
    });
  }

  /// For groups that are not direct(): moves `sends[r]` bytes, which `pack` writes, to each rank r, this one included, and runs a
  /// body over the `receives[r]` bytes of each. Ranks: all. Throws: MismatchError, PeerFailedError, TimeoutError, before the body.
  void exchange_packed(const CallInfo& call, std::span<const std::int64_t> sends,
                       std::span<const std::int64_t> receives, PackFunction pack, PeersFunction body) const {
    Messages::exchange_packed(call, sends, receives, pack, body);
  }

  /// For groups that are direct(): an exchange in two halves, as ThreadCommunicator's. At most 256 of a group under way.
  using Posted = detail::SharedPosted;
  std::shared_ptr<Posted> post(const CallInfo& call, detail::Buffer in, std::size_t in_bytes) const {
    return detail::make_cached<Posted>(group_, me_, call, std::move(in), in_bytes);
  }

  // ---- collectives: as in DirectCollectives ---------------------------------------------------------------------

  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    direct() ? Direct::all_gather(in, out) : Messages::all_gather(in, out);
  }
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                    std::span<const std::int64_t> counts) const {
    direct() ? Direct::all_gather_v(in, out, counts) : Messages::all_gather_v(in, out, counts);
  }
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    direct() ? Direct::reduce_scatter(in, out, op) : Messages::reduce_scatter(in, out, op);
  }
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                        std::span<const std::int64_t> counts, ReduceOp op) const {
    direct() ? Direct::reduce_scatter_v(in, out, counts, op) : Messages::reduce_scatter_v(in, out, counts, op);
  }
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    direct() ? Direct::all_reduce(in, out, op) : Messages::all_reduce(in, out, op);
  }
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    direct() ? Direct::all_to_all_v(in, send_counts, out, recv_counts)
             : Messages::all_to_all_v(in, send_counts, out, recv_counts);
  }
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    direct() ? Direct::broadcast(data, root) : Messages::broadcast(data, root);
  }
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    direct() ? Direct::scatter(in, out, root) : Messages::scatter(in, out, root);
  }
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> counts, std::span<T> out,
                 int root) const {
    direct() ? Direct::scatter_v(in, counts, out, root) : Messages::scatter_v(in, counts, out, root);
  }

  /// Returns when `dest` has received. Ranks: this one, and `dest` with recv of the same type and size.
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    if (!direct()) return Messages::send(data, dest);
    detail::require_peer("send", dest, rank(), size());
    const CallInfo call = Direct::template call_info<T>(Collective::send, static_cast<std::int64_t>(data.size()), 0);
    group_->send(me_, dest, call, data.data(), data.size_bytes());
    tell(call);
  }

  template <Element T>
  void recv(std::span<T> data, int source) const {
    if (!direct()) return Messages::recv(data, source);
    detail::require_peer("recv", source, rank(), size());
    CallInfo call = Direct::template call_info<T>(Collective::recv, static_cast<std::int64_t>(data.size()),
                                                  static_cast<std::int64_t>(data.size()));
    call.root = source;
    group_->recv(me_, source, call, data.data(), data.size_bytes());
    tell(call);
  }

  /// Returns when all ranks have called it.
  void barrier() const {
    if (!direct()) return Messages::barrier();
    CallInfo call;
    call.collective = Collective::barrier;
    group_->meet(me_, group_->generation(), call);
  }

  /// A group for every color, its ranks ordered by key, then by rank here; nothing for a negative color. Label and
  /// deadline are inherited. Ranks: all.
  std::optional<ProcessCommunicator> split(int color, int key) const {
    const std::vector<int> members = detail::split_members(Direct::exchange_choices(color, key), color);
    std::shared_ptr<detail::SharedGroup> group =
        direct() ? group_->make_split(me_, members) : make_split_on_host(members);
    std::shared_ptr<detail::MessageGroup> messages = direct() ? nullptr : messages_->make_split(members, color);
    if (group != nullptr) messages = nullptr;
    if (group == nullptr && messages == nullptr) return std::nullopt;
    ProcessCommunicator part = *this;
    part.group_ = std::move(group);
    part.messages_ = std::move(messages);
    part.me_.rank = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
    return part;
  }

  /// Tells all ranks of the world that this one gives up: what they wait for, and every later call, throws
  /// PeerFailedError with the reason.
  void abort(std::string reason) const {
    const int self = direct() ? group_->world_rank(rank()) : messages_->world_rank(rank());
    const detail::Failure failure{detail::FailureKind::peer, detail::text("rank ", self, " aborted: ", reason), self};
    direct() ? group_->fail(failure) : messages_->board().fail(failure);
  }

 private:
  friend Direct;
  friend Messages;

  // Of ranks that send messages, some that share memory: a group that does. Nothing where not all members do. Ranks: all.
  std::shared_ptr<detail::SharedGroup> make_split_on_host(const std::vector<int>& members) const {
    std::vector<int> places = messages_->places_on_host(members);
    std::vector<std::uint64_t> parts(static_cast<std::size_t>(size()));
    std::uint64_t mine = 0;
    if (!places.empty() && members[0] == rank())
      mine = detail::SharedGroup::make(*messages_->host(), static_cast<int>(places.size()));
    CallInfo call;
    call.collective = Collective::split;
    on_messages(call, [&](detail::MessageChannel& channel) {
      detail::all_gather_bytes(channel, reinterpret_cast<const std::byte*>(&mine),
                               reinterpret_cast<std::byte*>(parts.data()), detail::BlockOffsets(size(), sizeof mine));
    });
    if (places.empty()) return nullptr;
    return detail::SharedGroup::join(messages_->host(), parts[static_cast<std::size_t>(members[0])], std::move(places));
  }

  // What an exchange is where nothing is shared: everybody gets every input.
  void exchange_whole(const CallInfo& call, const void* in, std::size_t in_bytes, PeersFunction body) const {
    std::vector<std::int64_t> bytes(static_cast<std::size_t>(size()));
    const auto mine = static_cast<std::int64_t>(in_bytes);
    CallInfo sizes = call;
    sizes.bytes = CallInfo::part_of_another;
    const auto gather = [&](const CallInfo& part, const void* from, std::span<const std::int64_t> counts,
                            std::byte* to) {
      on_messages(part, [&](detail::MessageChannel& channel) {
        detail::all_gather_bytes(channel, static_cast<const std::byte*>(from), to, detail::BlockOffsets(counts, 1));
      });
    };
    const std::vector<std::int64_t> one(bytes.size(), static_cast<std::int64_t>(sizeof(mine)));
    gather(sizes, &mine, one, reinterpret_cast<std::byte*>(bytes.data()));
    const detail::Buffer all(static_cast<std::size_t>(detail::sum_before(bytes, size())));
    gather(call, in, bytes, all.data());
    std::vector<const std::byte*> inputs;
    for (int r = 0; r < size(); ++r) inputs.push_back(all.data() + detail::sum_before(bytes, r));
    body(Peers{size(), inputs.data(), nullptr});
  }

  template <class Body>
  void on_messages(const CallInfo& call, Body body) const {
    {
      detail::MessageGroup::Call channel(*messages_, me_, call);
      body(channel);
    }
    tell(call);
  }

  std::string rank_text(int r) const { return direct() ? group_->rank_text(r) : messages_->rank_text(r); }
  [[noreturn]] void fail(std::string mismatch) const {
    if (!direct()) messages_->fail(me_, std::move(mismatch));
    const detail::Failure failure{detail::FailureKind::mismatch, std::move(mismatch), group_->world_rank(rank())};
    group_->fail(failure);
    detail::throw_failure(failure, {});
  }

  std::shared_ptr<void> world_;
  std::shared_ptr<detail::SharedGroup> group_;  // all on one host
  std::shared_ptr<detail::MessageGroup> messages_;  // or else
};

static_assert(DirectAccessCommunicator<ProcessCommunicator> && ExchangesPacked<ProcessCommunicator>);

}  // namespace shardwise
