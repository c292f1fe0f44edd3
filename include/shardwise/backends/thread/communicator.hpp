// ThreadCommunicator: ranks that are threads of this process and copy straight from each other's buffers.
// run_ranks makes one. Layer: backends/thread.
#pragma once

#include <algorithm>
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

#include <shardwise/backends/thread/arguments.hpp>
#include <shardwise/backends/thread/group.hpp>
#include <shardwise/backends/thread/message.hpp>
#include <shardwise/backends/thread/posted.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/reduce.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise {

/// One rank of a group of threads. A handle: cheap to copy; one thread at a time may use it.
///
/// Every collective must be called by all ranks of the group, in the same order, with the same operation, element type
/// and counts. Sizes that do not fit on one rank are a ShapeError there, before anything happens. Otherwise a call
/// throws MismatchError, PeerFailedError or TimeoutError, on every rank that takes part, before data has
/// moved; afterwards every call on every group of the world throws the same. Reductions add in rank order: all
/// ranks get the same bits.
class ThreadCommunicator {
 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  /// Inputs of at most this many bytes a rank may go through exchange_staged.
  static constexpr std::size_t staged_limit = detail::ThreadGroup::staged_limit;

  ThreadCommunicator(std::shared_ptr<detail::ThreadGroup> group, int rank)
      : group_(std::move(group)), me_{rank, Name(), detail::default_deadline()} {}

  int rank() const { return me_.rank; }
  int size() const { return group_->size; }
  /// The same on all ranks of the group, another for every group of the process.
  std::uint64_t id() const { return group_->id(); }

  /// The label in errors and traces: a mesh axis.
  Name axis() const { return me_.axis; }
  ThreadCommunicator with_axis(Name axis) const {
    ThreadCommunicator c = *this;
    c.me_.axis = axis;
    return c;
  }

  /// How long a call waits for the other ranks.
  std::chrono::milliseconds deadline() const { return me_.deadline; }
  ThreadCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    SHARDWISE_REQUIRE(deadline.count() > 0,
                      detail::text("shardwise::with_deadline: a deadline is positive, not ", deadline.count(), " ms"));
    ThreadCommunicator c = *this;
    // A year stands for more: the sum with the clock must not overflow.
    c.me_.deadline = std::min(deadline, std::chrono::milliseconds(std::chrono::hours(365 * 24)));
    return c;
  }

  // ---- the exchanges that everything else is made of ------------------------------------------------------------

  /// Meets all ranks, then runs `body(Peers)` on each while all `in` may be read and all `out` written, and returns
  /// when all have finished. `body` must not throw.
  /// Ranks: all. Throws: MismatchError, PeerFailedError, TimeoutError, on all ranks, before any body.
  void exchange(const CallInfo& call, const void* in, void* out, PeersFunction body) const {
    const std::uint32_t generation = group_->generation();
    group_->meet(me_, generation, call, in, out);
    const Leave leave{*group_};  // also when a trace listener throws: the others are reading
    tell(call);
    body(group_->peers(generation));
  }

  /// The same for inputs of at most staged_limit bytes on every rank: they are copied first, so that one
  /// synchronisation does. `in` is free on return; `Peers::out` holds null pointers.
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
  std::shared_ptr<Posted> post(const CallInfo& call, detail::Buffer in) const {
    return detail::make_cached<Posted>(group_, me_, call, std::move(in));
  }

  // ---- collectives ----------------------------------------------------------------------------------------------

  /// Needs: out.size() == size * in.size(). Gives: every rank's `in`, in rank order. Moves: (size - 1) * in.
  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    const std::int64_t n = count(in);
    require(count(out) == n * size(), "all_gather", "the output", count(out), n * size());
    gather(
        call_info<T>(Collective::all_gather, n, (size() - 1) * n), in, out, [n](int r) { return std::pair{r * n, n}; },
        n);
  }

  /// Needs: in.size() == counts[rank], out.size() == sum(counts), equal counts on all ranks.
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                    std::span<const std::int64_t> counts) const {
    require_counts("all_gather_v", counts);
    const std::int64_t mine = counts[index(rank())], total = detail::sum_before(counts, size());
    require(count(in) == mine, "all_gather_v", "the input", count(in), mine);
    require(count(out) == total, "all_gather_v", "the output", count(out), total);
    CallInfo call = call_info<T>(Collective::all_gather, total, total - mine);
    call.layout = detail::fingerprint(counts);
    gather(
        call, in, out, [&](int r) { return std::pair{detail::sum_before(counts, r), counts[index(r)]}; },
        *std::max_element(counts.begin(), counts.end()));
  }

  /// Needs: in.size() == size * out.size(). Gives: this rank's part of the reduction. Moves: (size - 1) * out.
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(out);
    require(count(in) == n * size(), "reduce_scatter", "the input", count(in), n * size());
    reduce_part(call_info<T>(Collective::reduce_scatter, n * size(), (size() - 1) * n), in, out, rank() * n, op);
  }

  /// Needs: in.size() == sum(counts), out.size() == counts[rank], equal counts on all ranks.
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                        std::span<const std::int64_t> counts, ReduceOp op) const {
    require_counts("reduce_scatter_v", counts);
    const std::int64_t mine = counts[index(rank())], total = detail::sum_before(counts, size());
    require(count(in) == total, "reduce_scatter_v", "the input", count(in), total);
    require(count(out) == mine, "reduce_scatter_v", "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::reduce_scatter, total, (size() - 1) * mine);
    call.layout = detail::fingerprint(counts);
    reduce_part(call, in, out, detail::sum_before(counts, rank()), op);
  }

  /// Needs: out.size() == in.size(); `in` may be `out`. Gives: the reduction, everywhere. Moves: 2 (size - 1) / size * in.
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(in);
    require(count(out) == n, "all_reduce", "the output", count(out), n);
    require_reducible<T>("all_reduce", op);
    CallInfo call = call_info<T>(Collective::all_reduce, n, 2 * n * (size() - 1) / size());
    call.op = op;
    if (in.size_bytes() <= staged_limit) {
      exchange_staged(call, in.data(), in.size_bytes(),
                      [&](const Peers& peers) { reduce_peers<T>(peers, out.data(), 0, n, op); });
      return;
    }
    exchange(call, in.data(), out.data(), [&](const Peers& peers) {
      // Each rank reduces one part and writes it everywhere, in blocks that stay in the first-level cache. A part is
      // read and written by its rank alone, so that outputs may be inputs.
      constexpr std::int64_t block = 8192 / static_cast<std::int64_t>(sizeof(T));
      const std::int64_t part = (n / size() + 64) / 64 * 64;  // whole cache lines
      const std::int64_t end = std::min(n, (rank() + 1) * part);
      const bool stream = out.size_bytes() >= detail::streamed_bytes;
      alignas(64) T sum[static_cast<std::size_t>(block)];
      for (std::int64_t at = rank() * part; at < end; at += block) {
        const std::int64_t m = std::min(block, end - at);
        reduce_peers<T>(peers, sum, at, m, op);
        for (int r = 0; r < peers.size; ++r) {
          T* to = reinterpret_cast<T*>(peers.out[r]) + at;
          stream ? detail::stream_copy(to, sum, static_cast<std::size_t>(m) * sizeof(T)) : copy(to, sum, m);
        }
      }
      if (stream) detail::stream_fence();
    });
  }

  /// Needs: in.size() == sum(send_counts), out.size() == sum(recv_counts), recv_counts[s] on rank r == send_counts[r]
  /// on rank s. Gives: what each rank sent to this one, in rank order.
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    require_counts("all_to_all_v", send_counts);
    require_counts("all_to_all_v", recv_counts);
    require(count(in) == detail::sum_before(send_counts, size()), "all_to_all_v", "the input", count(in),
            detail::sum_before(send_counts, size()));
    require(count(out) == detail::sum_before(recv_counts, size()), "all_to_all_v", "the output", count(out),
            detail::sum_before(recv_counts, size()));
    CallInfo call = call_info<T>(Collective::all_to_all, 0, count(out) - recv_counts[index(rank())]);
    call.shape = {};  // counts differ between ranks; they are compared below
    struct Offer {
      const T* data;
      const std::int64_t* sends;
      const std::int64_t* receives;
    };
    const Offer offer{in.data(), send_counts.data(), recv_counts.data()};
    int from = -1, to = -1;
    std::int64_t sent = 0, expected = 0;
    exchange(call, &offer, nullptr, [&](const Peers& peers) {
      const auto of = [&](int r) -> const Offer& { return *reinterpret_cast<const Offer*>(peers.in[r]); };
      for (int r = 0; r < peers.size && from < 0; ++r)  // every rank checks all pairs: one verdict
        for (int s = 0; s < peers.size && from < 0; ++s)
          if (of(r).sends[s] != of(s).receives[r]) {
            from = r, to = s;
            sent = of(r).sends[s], expected = of(s).receives[r];
          }
      if (from >= 0) return;
      T* at = out.data();
      for (int r = 0; r < peers.size; ++r) {
        const Offer& o = of(r);
        copy(at, o.data + detail::sum_before({o.sends, index(peers.size)}, rank()), o.sends[rank()]);
        at += o.sends[rank()];
      }
    });
    if (from >= 0) {
      const std::string text = detail::text("shardwise: ranks disagree in ", detail::operation_text(call, me_.axis),
                                            ": ", group_->rank_text(from), " sends ", sent, " elements to ",
                                            group_->rank_text(to), ", which expects ", expected);
      group_->world().fail({detail::FailureKind::mismatch, text, group_->world_rank(rank())});
      throw MismatchError(text);
    }
  }

  /// Needs: equal sizes on all ranks. Gives: the root's data, everywhere. Moves: data, to all but the root.
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    require_rank("broadcast", root);
    CallInfo call = call_info<T>(Collective::broadcast, count(data), rank() == root ? 0 : count(data));
    call.root = root;
    const auto body = [&](const Peers& peers) {
      if (rank() != root) copy(data.data(), reinterpret_cast<const T*>(peers.in[root]), count(data));
    };
    if (data.size_bytes() <= staged_limit)
      exchange_staged(call, data.data(), rank() == root ? data.size_bytes() : 0, body);
    else
      exchange(call, data.data(), nullptr, body);
  }

  /// Needs: in.size() == size * out.size() on the root (elsewhere `in` is not looked at).
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    require_rank("scatter", root);
    const std::int64_t n = count(out);
    if (rank() == root) require(count(in) == n * size(), "scatter", "the input", count(in), n * size());
    CallInfo call = call_info<T>(Collective::scatter, n * size(), rank() == root ? 0 : n);
    scatter_part(call, in, n * size(), out, rank() * n, root);
  }

  /// Needs: in.size() == sum(counts) on the root, out.size() == counts[rank], equal counts on all ranks.
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> counts, std::span<T> out,
                 int root) const {
    require_rank("scatter_v", root);
    require_counts("scatter_v", counts);
    const std::int64_t total = detail::sum_before(counts, size()), mine = counts[index(rank())];
    if (rank() == root) require(count(in) == total, "scatter_v", "the input", count(in), total);
    require(count(out) == mine, "scatter_v", "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::scatter, total, rank() == root ? 0 : mine);
    call.layout = detail::fingerprint(counts);
    scatter_part(call, in, total, out, detail::sum_before(counts, rank()), root);
  }

  /// Returns when `dest` has received. Ranks: this one, and `dest` with recv of the same type and size.
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    require_peer("send", dest);
    const CallInfo call = call_info<T>(Collective::send, count(data), 0);
    detail::send_message(*group_, me_, dest, call, data.data());
    tell(call);
  }

  template <Element T>
  void recv(std::span<T> data, int source) const {
    require_peer("recv", source);
    CallInfo call = call_info<T>(Collective::recv, count(data), count(data));
    call.root = source;
    detail::receive_message(*group_, me_, source, call, data.data(), data.size_bytes());
    tell(call);
  }

  /// Returns when all ranks have called it.
  void barrier() const {
    CallInfo call;
    call.collective = Collective::barrier;
    group_->meet(me_, group_->generation(), call, nullptr, nullptr);
  }

  /// A group for every color, its ranks ordered by key, then by rank here; nothing for a negative color. Label and
  /// deadline are inherited. Ranks: all.
  std::optional<ThreadCommunicator> split(int color, int key) const {
    struct Choice {
      int color;
      int key;
    };
    CallInfo call;
    call.collective = Collective::split;
    const Choice mine{color, key};
    std::vector<Choice> choices(index(size()));
    exchange_staged(call, &mine, sizeof(mine), [&](const Peers& peers) {
      for (int r = 0; r < peers.size; ++r) std::memcpy(&choices[index(r)], peers.in[r], sizeof(Choice));
    });

    std::vector<int> members;  // by key, then by rank
    for (int r = 0; r < size(); ++r) {
      if (color < 0 || choices[index(r)].color != color) continue;
      auto at = members.end();
      while (at != members.begin() && choices[index(at[-1])].key > choices[index(r)].key) --at;
      members.insert(at, r);
    }
    // The first member makes the group, the others copy its handle.
    std::shared_ptr<detail::ThreadGroup> made, shared;
    if (!members.empty() && members[0] == rank()) {
      std::vector<int> world_ranks;
      for (const int r : members) world_ranks.push_back(group_->world_rank(r));
      made = detail::ThreadGroup::make(group_->shared_world(), std::move(world_ranks));
    }
    exchange(call, &made, nullptr, [&](const Peers& peers) {
      if (!members.empty())
        shared = *reinterpret_cast<const std::shared_ptr<detail::ThreadGroup>*>(peers.in[members[0]]);
    });
    if (shared == nullptr) return std::nullopt;
    const auto place = std::find(members.begin(), members.end(), rank()) - members.begin();
    ThreadCommunicator part = *this;
    part.group_ = std::move(shared);
    part.me_.rank = static_cast<int>(place);
    return part;
  }

  /// Tells all ranks of the world that this one gives up: what they wait for, and every later call, throws
  /// PeerFailedError with the reason.
  void abort(std::string reason) const {
    const int self = group_->world_rank(rank());
    group_->world().fail({detail::FailureKind::peer, detail::text("rank ", self, " aborted: ", reason), self});
  }

 private:
  struct Leave {
    detail::ThreadGroup& group;
    ~Leave() { group.leave(); }
  };

  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }
  template <class T>
  static std::int64_t count(std::span<T> s) {
    return static_cast<std::int64_t>(s.size());
  }
  template <class T>
  static void copy(T* to, const T* from, std::int64_t n) {
    if (n > 0 && to != from) std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(n) * sizeof(T));
  }

  template <class T>
  static CallInfo call_info(Collective collective, std::int64_t elements, std::int64_t received) {
    CallInfo call;
    call.collective = collective;
    call.dtype = dtype_of<T>;
    call.shape = detail::Extents(Shape<1>{elements});
    call.bytes = received * static_cast<std::int64_t>(sizeof(T));
    return call;
  }

  void tell(const CallInfo& call) const {
    if (call.collective != Collective::split && call.collective != Collective::barrier)
      detail::trace(call.collective, call.dtype, me_.axis.view(), call.bytes);
  }

  // The checks of arguments: on the caller, before the call.
  void require(bool fits, const char* function, const char* what, std::int64_t has, std::int64_t needs) const {
    if (!fits) [[unlikely]]
      detail::fail_size(function, what, has, needs, size());
  }
  void require_counts(const char* function, std::span<const std::int64_t> counts) const {
    detail::require_counts(function, counts, size());
  }
  void require_rank(const char* function, int r) const { detail::require_rank(function, r, size()); }
  void require_peer(const char* function, int r) const { detail::require_peer(function, r, rank(), size()); }
  template <class T>
  static void require_reducible(const char* function, ReduceOp op) {
    if (!reducible<T>(op)) [[unlikely]]
      detail::fail_unordered(function, op);
  }

  // place(r): where the part of rank r stands in the output, and its length. `longest`: the longest part.
  template <class T, class Place>
  void gather(const CallInfo& call, std::span<const T> in, std::span<T> out, Place place, std::int64_t longest) const {
    const auto body = [&](const Peers& peers) {
      for (int r = 0; r < peers.size; ++r) {
        const auto [at, n] = place(r);
        copy(out.data() + at, r == rank() ? in.data() : reinterpret_cast<const T*>(peers.in[r]), n);
      }
    };
    if (static_cast<std::size_t>(longest) * sizeof(T) <= staged_limit)
      exchange_staged(call, in.data(), in.size_bytes(), body);
    else
      exchange(call, in.data(), nullptr, body);
  }

  template <class T>
  void reduce_part(CallInfo call, std::span<const T> in, std::span<T> out, std::int64_t at, ReduceOp op) const {
    require_reducible<T>("reduce_scatter", op);
    call.op = op;
    const auto body = [&](const Peers& peers) { reduce_peers<T>(peers, out.data(), at, count(out), op); };
    if (in.size_bytes() <= staged_limit)
      exchange_staged(call, in.data(), in.size_bytes(), body);
    else
      exchange(call, in.data(), nullptr, body);
  }

  template <class T>
  void scatter_part(CallInfo call, std::span<const T> in, std::int64_t total, std::span<T> out, std::int64_t at,
                    int root) const {
    call.root = root;
    const auto body = [&](const Peers& peers) {
      copy(out.data(), reinterpret_cast<const T*>(peers.in[root]) + at, count(out));
    };
    if (static_cast<std::size_t>(total) * sizeof(T) <= staged_limit)
      exchange_staged(call, in.data(), rank() == root ? in.size_bytes() : 0, body);
    else
      exchange(call, in.data(), nullptr, body);
  }

  // out[0, n) = the reduction of all inputs' [at, at + n).
  template <class T>
  static void reduce_peers(const Peers& peers, T* out, std::int64_t at, std::int64_t n, ReduceOp op) {
    if (n == 0) return;
    const void* terms[detail::max_ranks_reduced];
    terms[0] = nullptr;  // g++ -O3 does not see that there is a rank at least
    for (int r = 0; r < peers.size; ++r) terms[r] = peers.in[r] + at * static_cast<std::int64_t>(sizeof(T));
    detail::reduce_blocks(detail::reduce_kernels<typename detail::Reduced<T>::type>, out, terms, peers.size, n, op,
                          static_cast<std::size_t>(n) * sizeof(T) >= detail::streamed_bytes);
  }

  std::shared_ptr<detail::ThreadGroup> group_;
  detail::ThreadCaller me_;
};

}  // namespace shardwise
