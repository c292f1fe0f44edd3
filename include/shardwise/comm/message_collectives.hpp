// MessageCollectives: the collectives of a communicator whose ranks exchange messages, written once over MessageChannel: what each is
// called with, and which of message_algorithms.hpp moves its bytes. Layer: comm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/base/dtype.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/message_algorithms.hpp>
#include <shardwise/comm/message_channel.hpp>
#include <shardwise/comm/packed_blocks.hpp>

namespace shardwise::detail {

// A base of communicators: checks arguments, says what the call is, forgets the element type. `Self` gives rank(), size(), axis(), and
//   on_messages(call, body)   makes the channel of this call, runs body(channel), tells the trace
//   fail(text)                all ranks of the world stop with this mismatch
//   rank_text(rank)           how messages call a rank
template <class Self>
class MessageCollectives : protected CollectiveArguments {
 public:
  /// Needs: out.size() == size * in.size(). Gives: every rank's `in`, in rank order. Moves: (size - 1) * in.
  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    const std::int64_t n = count(in);
    require(count(out) == n * size(), "all_gather", "the output", count(out), n * size());
    gather(call_info<T>(Collective::all_gather, n, (size() - 1) * n), in, out, BlockOffsets(size(), in.size_bytes()));
  }

  /// Needs: in.size() == counts[rank], out.size() == sum(counts), equal counts on all ranks.
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                    std::span<const std::int64_t> counts) const {
    detail::require_counts("all_gather_v", counts, size());
    const std::int64_t mine = counts[static_cast<std::size_t>(rank())], total = sum_before(counts, size());
    require(count(in) == mine, "all_gather_v", "the input", count(in), mine);
    require(count(out) == total, "all_gather_v", "the output", count(out), total);
    CallInfo call = call_info<T>(Collective::all_gather, total, total - mine);
    call.layout = fingerprint(counts);
    gather(call, in, out, BlockOffsets(counts, sizeof(T)));
  }

  /// Needs: in.size() == size * out.size(). Gives: this rank's part of the reduction. Moves: (size - 1) * out.
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(out);
    require(count(in) == n * size(), "reduce_scatter", "the input", count(in), n * size());
    reduce_part(call_info<T>(Collective::reduce_scatter, n * size(), (size() - 1) * n), in, out,
                BlockOffsets(size(), out.size_bytes()), op);
  }

  /// Needs: in.size() == sum(counts), out.size() == counts[rank], equal counts on all ranks.
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                        std::span<const std::int64_t> counts, ReduceOp op) const {
    detail::require_counts("reduce_scatter_v", counts, size());
    const std::int64_t mine = counts[static_cast<std::size_t>(rank())], total = sum_before(counts, size());
    require(count(in) == total, "reduce_scatter_v", "the input", count(in), total);
    require(count(out) == mine, "reduce_scatter_v", "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::reduce_scatter, total, (size() - 1) * mine);
    call.layout = fingerprint(counts);
    reduce_part(call, in, out, BlockOffsets(counts, sizeof(T)), op);
  }

  /// Needs: out.size() == in.size(); `in` may be `out`. Gives: the reduction, everywhere. Moves: 2 (size - 1) / size * in, or
  /// (size - 1) * in of few bytes.
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(in);
    require(count(out) == n, "all_reduce", "the output", count(out), n);
    require_reducible<T>("all_reduce", op);
    CallInfo call = call_info<T>(Collective::all_reduce, n, 2 * n * (size() - 1) / size());
    call.op = op;
    self().on_messages(call, [&](MessageChannel& channel) {
      all_reduce_bytes(channel, kernels<T>(), bytes(in), bytes(out), in.size_bytes(), op);
    });
  }

  /// Needs: in.size() == sum(send_counts), out.size() == sum(recv_counts), recv_counts[s] on rank r == send_counts[r]
  /// on rank s. Gives: what each rank sent to this one, in rank order.
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    detail::require_counts("all_to_all_v", send_counts, size());
    detail::require_counts("all_to_all_v", recv_counts, size());
    const std::int64_t sent = sum_before(send_counts, size()), received = sum_before(recv_counts, size());
    require(count(in) == sent, "all_to_all_v", "the input", count(in), sent);
    require(count(out) == received, "all_to_all_v", "the output", count(out), received);
    const auto own = static_cast<std::size_t>(rank());
    CallInfo call = call_info<T>(Collective::all_to_all, 0, count(out) - recv_counts[own]);
    call.shape = {};  // counts differ between ranks; each message is compared with what is expected
    if (send_counts[own] != recv_counts[own])
      self().fail(text("shardwise: ranks disagree in ", operation_text(call, self().axis()), ": ",
                       self().rank_text(rank()), " sends ", send_counts[own], " elements to itself and expects ",
                       recv_counts[own]));
    self().on_messages(call, [&](MessageChannel& channel) {
      all_to_all_bytes(channel, bytes(in), BlockOffsets(send_counts, sizeof(T)), bytes(out),
                       BlockOffsets(recv_counts, sizeof(T)));
    });
  }

  /// Needs: equal sizes on all ranks. Gives: the root's data, everywhere. Moves: data, to all but the root.
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    require_rank("broadcast", root, size());
    CallInfo call = call_info<T>(Collective::broadcast, count(data), rank() == root ? 0 : count(data));
    call.root = root;
    self().on_messages(
        call, [&](MessageChannel& channel) { broadcast_bytes(channel, bytes(data), data.size_bytes(), root); });
  }

  /// Needs: in.size() == size * out.size() on the root (elsewhere `in` is not looked at).
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    require_rank("scatter", root, size());
    const std::int64_t n = count(out);
    if (rank() == root) require(count(in) == n * size(), "scatter", "the input", count(in), n * size());
    CallInfo call = call_info<T>(Collective::scatter, n * size(), rank() == root ? 0 : n);
    scatter_part(call, in, out, BlockOffsets(size(), out.size_bytes()), root);
  }

  /// Needs: in.size() == sum(counts) on the root, out.size() == counts[rank], equal counts on all ranks.
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> counts, std::span<T> out,
                 int root) const {
    require_rank("scatter_v", root, size());
    detail::require_counts("scatter_v", counts, size());
    const std::int64_t total = sum_before(counts, size()), mine = counts[static_cast<std::size_t>(rank())];
    if (rank() == root) require(count(in) == total, "scatter_v", "the input", count(in), total);
    require(count(out) == mine, "scatter_v", "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::scatter, total, rank() == root ? 0 : mine);
    call.layout = fingerprint(counts);
    scatter_part(call, in, out, BlockOffsets(counts, sizeof(T)), root);
  }

  /// Returns when `dest` has come to receive. Ranks: this one, and `dest` with recv of the same type and size.
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    require_peer("send", dest, rank(), size());
    self().on_messages(call_info<T>(Collective::send, count(data), 0),
                       [&](MessageChannel& channel) { send_bytes(channel, data.data(), data.size_bytes(), dest); });
  }

  template <Element T>
  void recv(std::span<T> data, int source) const {
    require_peer("recv", source, rank(), size());
    CallInfo call = call_info<T>(Collective::recv, count(data), count(data));
    call.root = source;
    self().on_messages(
        call, [&](MessageChannel& channel) { receive_bytes(channel, data.data(), data.size_bytes(), source); });
  }

  /// Moves `sends[r]` bytes, which `pack` writes, to each rank r, this one included, and runs a body over
  /// the `receives[r]` bytes of each. Ranks: all. Throws: MismatchError, PeerFailedError, TimeoutError, before the body.
  void exchange_packed(const CallInfo& call, std::span<const std::int64_t> sends,
                       std::span<const std::int64_t> receives, const shardwise::PackFunction& pack,
                       PeersFunction body) const {
    self().on_messages(call, [&](MessageChannel& channel) {
      const PackedBlocks blocks(channel, sends, receives, pack);
      body(Peers{size(), blocks.data(), nullptr});
    });
  }

  /// Returns when all ranks have called it.
  void barrier() const {
    CallInfo call;
    call.collective = Collective::barrier;
    call.bytes = CallInfo::part_of_another;  // moves nothing: nobody counts it
    self().on_messages(call, [](MessageChannel& channel) { barrier_messages(channel); });
  }

 private:
  const Self& self() const { return static_cast<const Self&>(*this); }
  int rank() const { return self().rank(); }
  int size() const { return self().size(); }

  template <class T>
  static const std::byte* bytes(std::span<const T> s) {
    return reinterpret_cast<const std::byte*>(s.data());
  }
  template <class T>
  static std::byte* bytes(std::span<T> s) {
    return reinterpret_cast<std::byte*>(s.data());
  }
  template <class T>
  static const ReduceKernels& kernels() {
    return reduce_kernels<typename Reduced<T>::type>;
  }
  void require(bool fits, const char* function, const char* what, std::int64_t has, std::int64_t needs) const {
    if (!fits) [[unlikely]]
      fail_size(function, what, has, needs, size());
  }

  template <class T>
  void gather(const CallInfo& call, std::span<const T> in, std::span<T> out, const BlockOffsets& at) const {
    self().on_messages(call, [&](MessageChannel& channel) { all_gather_bytes(channel, bytes(in), bytes(out), at); });
  }
  template <class T>
  void reduce_part(CallInfo call, std::span<const T> in, std::span<T> out, const BlockOffsets& at, ReduceOp op) const {
    require_reducible<T>("reduce_scatter", op);
    call.op = op;
    self().on_messages(call, [&](MessageChannel& channel) {
      reduce_scatter_bytes(channel, kernels<T>(), bytes(in), bytes(out), at, op);
    });
  }
  template <class T>
  void scatter_part(CallInfo call, std::span<const T> in, std::span<T> out, const BlockOffsets& at, int root) const {
    call.root = root;
    self().on_messages(call, [&](MessageChannel& channel) { scatter_bytes(channel, bytes(in), bytes(out), at, root); });
  }
};

}  // namespace shardwise::detail
