// NcclCommunicator: one rank of a group of GPUs, over NCCL. Buffers lie on the rank's device; a call is put on its current stream and
// returns. Layer: backends/nccl.
#pragma once

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

#include <shardwise/backends/nccl/group.hpp>
#include <shardwise/backends/nccl/launched.hpp>
#include <shardwise/backends/nccl/threads.hpp>
#include <shardwise/backends/thread/communicator.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/handle.hpp>
#include <shardwise/comm/stream_communicator.hpp>

namespace shardwise {

/// One rank of a group of GPUs; ranks are processes or threads, each with a device of its own. A handle: cheap to copy; one thread at a
/// time may use it.
///
/// All spans are of memory of the rank's device. A call is put on the current stream of that device and returns before it is done: what
/// comes later on the stream sees its result, the host sees it after `synchronize()`, and input and output stay untouched until then.
/// Calls must be the same, in the same order, on all ranks, on all communicators of a device: NCCL does not compare them, and what
/// differs is not defined. Sizes that do not fit on one rank are a ShapeError there, before anything happens.
///
/// NCCL finds errors in the background: the next call, or `synchronize()`, throws PeerFailedError or TimeoutError, and so does
/// every later one. Reductions are NCCL's own, whose order of terms is not defined, unless `with_rank_order(true)` asks for the
/// order of the ranks (the bits of the other backends, on up to 64 ranks, for at most twice the bytes).
class NcclCommunicator : public detail::CommunicatorHandle<NcclCommunicator>, private detail::CollectiveArguments {
 public:
  static constexpr MemorySpace memory_space = MemorySpace::cuda;
  /// Traced (comm/decorators.hpp) adds nothing.
  static constexpr bool traces_calls = true;

  /// All ranks that this process was launched with (torchrun, mpirun, srun, scripts/launch.sh), whatever SHARDWISE_BACKEND says. Each
  /// gets the only device that it sees, or else that of its number on its host, which becomes the calling thread's; they meet through
  /// the store of their processes, that of from_env() where it was called before. A rank that dies or fails is told to the others at
  /// once and ends what they wait for. Made once in a process.
  ///
  /// Ranks: all. Throws: Error where this rank has no device of its own, PeerFailedError on the others; Error where the launcher's
  /// variables contradict each other or say not where to meet; TimeoutError that names who did not come.
  explicit NcclCommunicator(std::chrono::milliseconds deadline = detail::default_deadline())
      : NcclCommunicator(detail::launched_over_nccl(detail::checked_deadline(deadline)), deadline) {}

  /// The ranks of `run_ranks`, or of a part of them, as GPUs: each gets the only device that there is, or else that of its number in
  /// `run_ranks`, which becomes the calling thread's. A rank that leaves its function by an exception, calls `abort`, misses its deadline
  /// or hears an error from NCCL is told to the others at once, whichever of the two communicators they wait in. Deadline: that of
  /// `threads`. Ranks: all of `threads`. Throws: Error where this rank has no device, or two have the same; as every call.
  explicit NcclCommunicator(const ThreadCommunicator& threads)
      : NcclCommunicator(detail::threads_over_nccl(threads), threads.deadline()) {}

  /// Meets the other ranks of a world of `size` that were given the same `unique`. The calling thread's current device becomes the
  /// rank's. Ranks: all. Throws: Error without a device, TimeoutError, CommError.
  NcclCommunicator(const ncclUniqueId& unique, int size, int rank,
                   std::chrono::milliseconds deadline = detail::default_deadline())
      : NcclCommunicator(detail::NcclGroup::make(unique, size, rank, detail::checked_deadline(deadline)), deadline) {}
  /// As another part of a program has met them.
  NcclCommunicator(std::shared_ptr<detail::NcclGroup> group, std::chrono::milliseconds deadline)
      : CommunicatorHandle(group->rank(), deadline), group_(std::move(group)) {}

  int size() const { return group_->size(); }
  /// The device on which the rank's buffers lie.
  int device() const { return group_->device(); }
  /// The same on all ranks of the group, another for every group of the world.
  std::uint64_t id() const { return group_->id(); }

  /// Whether reductions add up in the order of the ranks.
  NcclCommunicator with_rank_order(bool wanted) const {
    NcclCommunicator c = *this;
    c.rank_order_ = wanted;
    return c;
  }

  /// Needs: out.size() == size * in.size(). Gives: every rank's `in`, in rank order. Moves: (size - 1) * in. In place where `in` is
  /// this rank's part of `out`.
  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    const std::int64_t n = count(in);
    require(count(out) == n * size(), "all_gather", "the output", count(out), n * size());
    all_gather_on_stream(call_info<T>(Collective::all_gather, n, (size() - 1) * n), in.data(), out.data(), n);
  }
  /// Needs: in.size() == counts[rank], out.size() == sum(counts), equal counts on all ranks. Moves: out - in.
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                    std::span<const std::int64_t> counts) const {
    detail::require_counts("all_gather_v", counts, size());
    const std::int64_t total = detail::sum_before(counts, size()), mine = counts[index(rank())];
    require(count(in) == mine, "all_gather_v", "the input", count(in), mine);
    require(count(out) == total, "all_gather_v", "the output", count(out), total);
    const CallInfo call = call_info<T>(Collective::all_gather, total, total - mine);
    spread(call, in.data(), counts, out.data());
    tell(call);
  }
  /// Needs: in.size() == size * out.size(). Gives: the reduction of every rank's part for this rank. Moves: (size - 1) * out.
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(out);
    require(count(in) == n * size(), "reduce_scatter", "the input", count(in), n * size());
    require_reducible<T>("reduce_scatter", op);
    CallInfo call = call_info<T>(Collective::reduce_scatter, n * size(), (size() - 1) * n);
    call.op = op;
    reduce_scatter_on_stream(call, in.data(), out.data(), n);
  }
  /// Needs: in.size() == sum(counts), out.size() == counts[rank], equal counts on all ranks. Adds up in rank order.
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                        std::span<const std::int64_t> counts, ReduceOp op) const {
    detail::require_counts("reduce_scatter_v", counts, size());
    const std::int64_t total = detail::sum_before(counts, size()), mine = counts[index(rank())];
    require(count(in) == total, "reduce_scatter_v", "the input", count(in), total);
    require(count(out) == mine, "reduce_scatter_v", "the output", count(out), mine);
    require_reducible<T>("reduce_scatter_v", op);
    CallInfo call = call_info<T>(Collective::reduce_scatter, total, (size() - 1) * mine);
    call.op = op;
    group_->reduce_in_order(me_, call, in.data(), counts, out.data());
    tell(call);
  }
  /// Needs: out.size() == in.size(). `out` may be `in`.
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(in);
    require(count(out) == n, "all_reduce", "the output", count(out), n);
    require_reducible<T>("all_reduce", op);
    CallInfo call = call_info<T>(Collective::all_reduce, n, 2 * n * (size() - 1) / size());
    call.op = op;
    all_reduce_on_stream(call, in.data(), out.data(), n);
  }
  /// Needs: in.size() == sum(send_counts), out.size() == sum(recv_counts); recv_counts[r] here is send_counts[rank] on r. NCCL does not
  /// compare them. Moves: out, but what this rank sends itself.
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    detail::require_counts("all_to_all_v", send_counts, size());
    detail::require_counts("all_to_all_v", recv_counts, size());
    const std::int64_t sent = detail::sum_before(send_counts, size()),
                       received = detail::sum_before(recv_counts, size());
    require(count(in) == sent, "all_to_all_v", "the input", count(in), sent);
    require(count(out) == received, "all_to_all_v", "the output", count(out), received);
    require(send_counts[index(rank())] == recv_counts[index(rank())], "all_to_all_v", "what the rank sends itself",
            send_counts[index(rank())], recv_counts[index(rank())]);
    const CallInfo call = call_info<T>(Collective::all_to_all, 0, received - recv_counts[index(rank())]);
    group_->exchange(me_, call, {bytes(in.data()), send_counts}, {bytes(out.data()), recv_counts});
    tell(call);
  }
  /// Gives: the root's data on every rank.
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    detail::require_rank("broadcast", root, size());
    CallInfo call = call_info<T>(Collective::broadcast, count(data), rank() == root ? 0 : count(data));
    call.root = root;
    broadcast_on_stream(call, data.data(), count(data));
  }
  /// Needs, on the root: in.size() == size * out.size().
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    const std::vector<std::int64_t> counts(index(size()), count(out));
    scatter_parts<T>("scatter", in, counts, out, root);
  }
  /// Needs: out.size() == counts[rank], equal counts on all ranks; on the root: in.size() == sum(counts).
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> counts, std::span<T> out,
                 int root) const {
    scatter_parts<T>("scatter_v", in, counts, out, root);
  }
  /// Ranks: this one, and `dest` with recv of the same type and size.
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    detail::require_peer("send", dest, rank(), size());
    const CallInfo call = call_info<T>(Collective::send, count(data), 0);
    if (!data.empty()) group_->send(me_, call, data.data(), count(data), dest);
    tell(call);
  }
  template <Element T>
  void recv(std::span<T> data, int source) const {
    detail::require_peer("recv", source, rank(), size());
    CallInfo call = call_info<T>(Collective::recv, count(data), count(data));
    call.root = source;
    if (!data.empty()) group_->recv(me_, call, data.data(), count(data), source);
    tell(call);
  }

  // ---- the same over element types as values: StreamCommunicator -----------------------------------------------------------------

  void all_gather_on_stream(const CallInfo& call, const void* in, void* out, std::int64_t n) const {
    if (n > 0) group_->all_gather(me_, call, in, out, n);
    tell(call);
  }
  void reduce_scatter_on_stream(const CallInfo& call, const void* in, void* out, std::int64_t n) const {
    if (const auto native = detail::nccl_op(call.dtype, call.op); native && !rank_order_) {
      if (n > 0) group_->reduce_scatter(me_, call, in, out, n, *native);
    } else {
      const std::vector<std::int64_t> counts(index(size()), n);
      group_->reduce_in_order(me_, call, in, counts, out);
    }
    tell(call);
  }
  void all_reduce_on_stream(const CallInfo& call, const void* in, void* out, std::int64_t n) const {
    if (const auto native = detail::nccl_op(call.dtype, call.op); native && !rank_order_) {
      if (n > 0) group_->all_reduce(me_, call, in, out, n, *native);
    } else {
      std::vector<std::int64_t> counts(index(size()));
      const std::int64_t each = (n + size() - 1) / size();
      for (int r = 0; r < size(); ++r) counts[index(r)] = n < (r + 1) * each ? (n < r * each ? 0 : n - r * each) : each;
      const auto bytes = static_cast<std::size_t>(counts[index(rank())]) * size_of(call.dtype);
      const detail::Buffer part = detail::device_buffer(bytes, group_->stream());
      group_->reduce_in_order(me_, call, in, counts, part.data());
      spread(call, part.data(), counts, out);
    }
    tell(call);
  }
  void broadcast_on_stream(const CallInfo& call, void* data, std::int64_t n) const {
    if (n > 0) group_->broadcast(me_, call, data, n, call.root);
    tell(call);
  }
  void exchange_on_stream(const CallInfo& call, std::span<const StreamMessage> sends,
                          std::span<const StreamMessage> receives) const {
    if (!sends.empty() || !receives.empty()) group_->exchange(me_, call, sends, receives);
    tell(call);
  }

  /// Returns when all ranks have called it and everything on the current stream is done. Throws: as every call, TimeoutError.
  void barrier() const {
    CallInfo call;
    call.collective = Collective::barrier;
    call.dtype = DType::uint8;
    const detail::Buffer one = detail::device_buffer(1, group_->stream());
    detail::zero_device_memory(one.data(), 1, group_->stream());
    group_->all_reduce(me_, call, one.data(), one.data(), 1, ncclMax);
    group_->synchronize(me_, call);
  }
  /// Returns when everything on the current stream is done, this rank's part of all calls so far. Throws what NCCL has found
  /// meanwhile, TimeoutError after the deadline.
  void synchronize() const {
    CallInfo call;
    call.collective = Collective::barrier;
    group_->synchronize(me_, call);
  }

  /// A group for every color, its ranks ordered by key, then by rank here; nothing for a negative color. Label, deadline and order
  /// of reductions are inherited. Ranks: all.
  std::optional<NcclCommunicator> split(int color, int key) const {
    auto part = group_->split(me_, color, key);
    if (part == nullptr) return std::nullopt;
    NcclCommunicator c = *this;
    c.me_.rank = part->rank();
    c.group_ = std::move(part);
    return c;
  }
  /// This rank gives up: its calls throw PeerFailedError with the reason from now on; the others find out through NCCL or by their
  /// deadline.
  void abort(const std::string& reason) const { group_->abort(reason); }

 private:
  static std::byte* bytes(const void* p) { return static_cast<std::byte*>(const_cast<void*>(p)); }
  void require(bool fits, const char* function, const char* what, std::int64_t has, std::int64_t needs) const {
    if (!fits) detail::fail_size(function, what, has, needs, size());
  }
  // Every rank's part to all: as one collective where they are alike, else as messages.
  void spread(const CallInfo& call, const void* in, std::span<const std::int64_t> counts, void* out) const {
    bool alike = true;
    for (const std::int64_t n : counts) alike = alike && n == counts[0];
    if (alike) {
      if (counts[0] > 0) group_->all_gather(me_, call, in, out, counts[0]);
      return;
    }
    const std::vector<std::int64_t> mine(index(size()), counts[index(rank())]);
    group_->exchange(me_, call, {bytes(in), mine, true}, {bytes(out), counts});
  }
  template <class T>
  void scatter_parts(const char* function, std::span<const T> in, std::span<const std::int64_t> counts,
                     std::span<T> out, int root) const {
    detail::require_rank(function, root, size());
    detail::require_counts(function, counts, size());
    const std::int64_t total = detail::sum_before(counts, size()), mine = counts[index(rank())];
    if (rank() == root) require(count(in) == total, function, "the input", count(in), total);
    require(count(out) == mine, function, "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::scatter, total, rank() == root ? 0 : mine);
    call.root = root;
    std::vector<std::int64_t> receives(index(size()));
    receives[index(root)] = mine;
    const std::span<const std::int64_t> none;
    group_->exchange(me_, call, {bytes(in.data()), rank() == root ? counts : none}, {bytes(out.data()), receives});
    tell(call);
  }

  std::shared_ptr<detail::NcclGroup> group_;
  bool rank_order_ = false;
};

}  // namespace shardwise
