// DirectCollectives: the collectives of a communicator whose ranks reach each other's buffers, written once over its
// exchange() and exchange_staged(): each rank copies or reduces what it wants from where it lies. Layer: comm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/lean.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/reduce.hpp>
#include <shardwise/comm/stream.hpp>

namespace shardwise::detail {

// What a rank says in a split.
struct SplitChoice {
  int color;
  int key;
};

// The ranks of a color, by key, then by rank.
template <class Choices, class Ranks = std::vector<int>>
Ranks split_members(const Choices& choices, int color) {
  Ranks members;
  for (int r = 0; r < static_cast<int>(choices.size()); ++r) {
    const auto key = [&](int rank) { return choices[static_cast<std::size_t>(rank)].key; };
    if (color < 0 || choices[static_cast<std::size_t>(r)].color != color) continue;
    members.push_back(r);
    for (std::size_t i = members.size() - 1; i > 0 && key(members[i - 1]) > key(r); --i)
      swap_values(members[i - 1], members[i]);
  }
  return members;
}

// A base of communicators. `Self` gives rank(), size(), axis(), exchange, exchange_staged, staged_limit, and
//   writes_peers       whether an exchange may write the other ranks' outputs; else they are read-only
//   fail(text)         all ranks of the world stop with this mismatch
//   rank_text(rank)    how messages call a rank
template <class Self>
class DirectCollectives : protected CollectiveArguments {
 public:
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
    const std::int64_t mine = counts[index(rank())], total = sum_before(counts, size());
    require(count(in) == mine, "all_gather_v", "the input", count(in), mine);
    require(count(out) == total, "all_gather_v", "the output", count(out), total);
    CallInfo call = call_info<T>(Collective::all_gather, total, total - mine);
    call.layout = fingerprint(counts);
    gather(
        call, in, out, [&](int r) { return std::pair{sum_before(counts, r), counts[index(r)]}; },
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
    const std::int64_t mine = counts[index(rank())], total = sum_before(counts, size());
    require(count(in) == total, "reduce_scatter_v", "the input", count(in), total);
    require(count(out) == mine, "reduce_scatter_v", "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::reduce_scatter, total, (size() - 1) * mine);
    call.layout = fingerprint(counts);
    reduce_part(call, in, out, sum_before(counts, rank()), op);
  }

  /// Needs: out.size() == in.size(); `in` may be `out`. Gives: the reduction, everywhere. Moves: 2 (size - 1) / size * in.
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t n = count(in);
    require(count(out) == n, "all_reduce", "the output", count(out), n);
    require_reducible<T>("all_reduce", op);
    CallInfo call = call_info<T>(Collective::all_reduce, n, 2 * n * (size() - 1) / size());
    call.op = op;
    if (in.size_bytes() <= Self::staged_limit) {
      self().exchange_staged(call, in.data(), in.size_bytes(),
                             [&](const Peers& peers) { reduce_peers<T>(peers, out.data(), 0, n, op); });
      return;
    }
    if constexpr (Self::writes_peers)
      self().exchange(call, in.data(), in.size_bytes(), out.data(),
                      [&](const Peers& peers) { reduce_and_spread<T>(peers, out, op); });
    else
      reduce_and_collect<T>(call, in, out, op);
  }

  /// Needs: in.size() == sum(send_counts), out.size() == sum(recv_counts), recv_counts[s] on rank r == send_counts[r]
  /// on rank s. Gives: what each rank sent to this one, in rank order.
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    require_counts("all_to_all_v", send_counts);
    require_counts("all_to_all_v", recv_counts);
    require(count(in) == sum_before(send_counts, size()), "all_to_all_v", "the input", count(in),
            sum_before(send_counts, size()));
    require(count(out) == sum_before(recv_counts, size()), "all_to_all_v", "the output", count(out),
            sum_before(recv_counts, size()));
    CallInfo call = call_info<T>(Collective::all_to_all, 0, count(out) - recv_counts[index(rank())]);
    call.shape = {};  // counts differ between ranks; they are compared below
    const Buffer before = offsets_of_pieces(call, send_counts, recv_counts);
    self().exchange(call, in.data(), in.size_bytes(), nullptr, [&](const Peers& peers) {
      T* at = out.data();
      for (int r = 0; r < peers.size; ++r) {
        const T* from = r == rank() ? in.data() : reinterpret_cast<const T*>(peers.in[r]);
        copy(at, from + before.template as<std::int64_t>()[r], recv_counts[index(r)]);
        at += recv_counts[index(r)];
      }
    });
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
    if (data.size_bytes() <= Self::staged_limit)
      self().exchange_staged(call, data.data(), rank() == root ? data.size_bytes() : 0, body);
    else
      self().exchange(call, data.data(), rank() == root ? data.size_bytes() : 0, nullptr, body);
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
    const std::int64_t total = sum_before(counts, size()), mine = counts[index(rank())];
    if (rank() == root) require(count(in) == total, "scatter_v", "the input", count(in), total);
    require(count(out) == mine, "scatter_v", "the output", count(out), mine);
    CallInfo call = call_info<T>(Collective::scatter, total, rank() == root ? 0 : mine);
    call.layout = fingerprint(counts);
    scatter_part(call, in, total, out, sum_before(counts, rank()), root);
  }

 protected:
  // What every rank chose in a split. Ranks: all.
  template <class Choice = SplitChoice>
  List<Choice> exchange_choices(int color, int key) const {
    CallInfo call;
    call.collective = Collective::split;
    const Choice mine{color, key};
    List<Choice> choices(index(size()));
    self().exchange_staged(call, &mine, sizeof(mine), [&](const Peers& peers) {
      for (int r = 0; r < peers.size; ++r) std::memcpy(&choices[index(r)], peers.in[r], sizeof(Choice));
    });
    return choices;
  }

  template <class T>
  static void copy(T* to, const T* from, std::int64_t n) {
    if (n > 0 && to != from) std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(n) * sizeof(T));
  }

 private:
  const Self& self() const { return static_cast<const Self&>(*this); }
  int rank() const { return self().rank(); }
  int size() const { return self().size(); }

  // The checks of arguments: on the caller, before the call.
  void require(bool fits, const char* function, const char* what, std::int64_t has, std::int64_t needs) const {
    if (!fits) [[unlikely]]
      fail_size(function, what, has, needs, size());
  }
  void require_counts(const char* function, std::span<const std::int64_t> counts) const {
    detail::require_counts(function, counts, size());
  }
  void require_rank(const char* function, int r) const { detail::require_rank(function, r, size()); }

  // place(r): where the part of rank r stands in the output, and its length. `longest`: the longest part.
  template <class T, class Place>
  void gather(const CallInfo& call, std::span<const T> in, std::span<T> out, Place place, std::int64_t longest) const {
    const auto body = [&](const Peers& peers) {
      for (int r = 0; r < peers.size; ++r) {
        const auto [at, n] = place(r);
        copy(out.data() + at, r == rank() ? in.data() : reinterpret_cast<const T*>(peers.in[r]), n);
      }
    };
    if (static_cast<std::size_t>(longest) * sizeof(T) <= Self::staged_limit)
      self().exchange_staged(call, in.data(), in.size_bytes(), body);
    else
      self().exchange(call, in.data(), in.size_bytes(), nullptr, body);
  }

  template <class T>
  void reduce_part(CallInfo call, std::span<const T> in, std::span<T> out, std::int64_t at, ReduceOp op) const {
    require_reducible<T>("reduce_scatter", op);
    call.op = op;
    const auto body = [&](const Peers& peers) { reduce_peers<T>(peers, out.data(), at, count(out), op); };
    if (in.size_bytes() <= Self::staged_limit)
      self().exchange_staged(call, in.data(), in.size_bytes(), body);
    else
      self().exchange(call, in.data(), in.size_bytes(), nullptr, body);
  }

  template <class T>
  void scatter_part(CallInfo call, std::span<const T> in, std::int64_t total, std::span<T> out, std::int64_t at,
                    int root) const {
    call.root = root;
    const auto body = [&](const Peers& peers) {
      copy(out.data(), reinterpret_cast<const T*>(peers.in[root]) + at, count(out));
    };
    if (static_cast<std::size_t>(total) * sizeof(T) <= Self::staged_limit)
      self().exchange_staged(call, in.data(), rank() == root ? in.size_bytes() : 0, body);
    else
      self().exchange(call, in.data(), rank() == root ? in.size_bytes() : 0, nullptr, body);
  }

  // out[0, n) = the reduction of all inputs' [at, at + n).
  template <class T>
  static void reduce_peers(const Peers& peers, T* out, std::int64_t at, std::int64_t n, ReduceOp op) {
    if (n == 0) return;
    const void* terms[max_ranks_reduced];
    terms[0] = nullptr;  // g++ -O3 does not see that there is a rank at least
    for (int r = 0; r < peers.size; ++r) terms[r] = peers.in[r] + at * static_cast<std::int64_t>(sizeof(T));
    reduce_blocks(reduce_kernels<typename Reduced<T>::type>, out, terms, peers.size, n, op,
                  static_cast<std::size_t>(n) * sizeof(T) >= streamed_bytes);
  }

  // An all_reduce where all write all outputs: each rank reduces one part and writes it everywhere, in blocks that stay in the
  // first-level cache. A part is read and written by its rank alone, so that outputs may be inputs.
  template <class T>
  void reduce_and_spread(const Peers& peers, std::span<T> out, ReduceOp op) const {
    constexpr std::int64_t block = 8192 / static_cast<std::int64_t>(sizeof(T));
    const bool stream = out.size_bytes() >= streamed_bytes;
    alignas(64) T sum[static_cast<std::size_t>(block)];
    const auto [begin, end] = part_to_reduce(count(out), rank());
    for (std::int64_t at = begin; at < end; at += block) {
      const std::int64_t m = std::min(block, end - at);
      reduce_peers<T>(peers, sum, at, m, op);
      for (int r = 0; r < peers.size; ++r) {
        T* to = reinterpret_cast<T*>(peers.out[r]) + at;
        stream ? stream_copy(to, sum, static_cast<std::size_t>(m) * sizeof(T)) : copy(to, sum, m);
      }
    }
    if (stream) stream_fence();
  }

  // The same where nobody writes another's memory: each rank reduces one part, then all collect the others'.
  template <class T>
  void reduce_and_collect(CallInfo call, std::span<const T> in, std::span<T> out, ReduceOp op) const {
    self().exchange(call, in.data(), in.size_bytes(), nullptr, [&](const Peers& peers) {
      const auto [begin, end] = part_to_reduce(count(out), rank());
      reduce_peers<T>(peers, out.data() + begin, begin, end - begin, op);
    });
    call.bytes = CallInfo::part_of_another;
    self().exchange(call, out.data(), out.size_bytes(), nullptr, [&](const Peers& peers) {
      for (int r = 0; r < peers.size; ++r) {
        const auto [begin, end] = part_to_reduce(count(out), r);
        if (r != rank()) copy(out.data() + begin, reinterpret_cast<const T*>(peers.in[r]) + begin, end - begin);
      }
    });
  }

  // [begin, end) of n elements, in whole cache lines.
  std::pair<std::int64_t, std::int64_t> part_to_reduce(std::int64_t n, int r) const {
    const std::int64_t part = (n / size() + 64) / 64 * 64;
    return {std::min(n, r * part), std::min(n, (r + 1) * part)};
  }

  // Where this rank's pieces begin in the inputs of the others, as int64. All ranks see all counts: one verdict.
  Buffer offsets_of_pieces(CallInfo call, std::span<const std::int64_t> sends,
                           std::span<const std::int64_t> receives) const {
    const std::size_t n = index(size());
    Buffer counts(2 * n * sizeof(std::int64_t)), before(n * sizeof(std::int64_t));
    std::memcpy(counts.data(), sends.data(), sends.size_bytes());
    std::memcpy(counts.data() + sends.size_bytes(), receives.data(), receives.size_bytes());
    std::string disagreement;
    call.bytes = CallInfo::part_of_another;
    self().exchange_staged(call, counts.data(), 2 * sends.size_bytes(), [&](const Peers& peers) {
      const auto sent = [&](int r) { return reinterpret_cast<const std::int64_t*>(peers.in[r]); };
      const auto received = [&](int r) { return sent(r) + peers.size; };
      for (int r = 0; r < peers.size; ++r)
        for (int s = 0; s < peers.size && disagreement.empty(); ++s)
          if (sent(r)[s] != received(s)[r])
            disagreement =
                text("shardwise: ranks disagree in ", operation_text(call, self().axis()), ": ", self().rank_text(r),
                     " sends ", sent(r)[s], " elements to ", self().rank_text(s), ", which expects ", received(s)[r]);
      for (int r = 0; r < peers.size; ++r)
        before.template as<std::int64_t>()[r] = sum_before({sent(r), index(peers.size)}, rank());
    });
    if (!disagreement.empty()) self().fail(disagreement);
    return before;
  }
};

}  // namespace shardwise::detail
