// DryRunCommunicator: one rank of a world of any size, without the others. Programs run on it as on any communicator; it counts
// and prices what they would communicate. Layer: comm.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/cost.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise {

/// How a dry run prices. Ranks 0 to ranks_per_node - 1 share a node, and so on; a group of ranks that share one is priced
/// `within_node`, every other one `across_nodes`.
struct DryRunOptions {
  int ranks_per_node = 8;
  CostModel within_node = shared_memory_cost;
  CostModel across_nodes = {};
};

/// Calls that were alike, and what they come to for this rank.
struct DryRunRow {
  std::string axis;  ///< the mesh axis, "dp_tp" for several, "" for a bare communicator
  Collective collective = Collective::none;
  std::int64_t ranks = 0;  ///< of the group
  bool across_nodes = false;
  std::int64_t calls = 0;
  std::int64_t messages = 0;  ///< one after the other: what this rank receives, or the rounds of a tree
  std::int64_t bytes = 0;  ///< received from other ranks
  double seconds = 0;  ///< as priced; no overlap is assumed
};

/// What ranks of one dry run have counted so far. All its groups share one.
class DryRunLedger {
 public:
  const std::vector<DryRunRow>& rows() const { return rows_; }
  /// The sum of the rows that `keep(row)` holds for.
  template <class Keep>
  DryRunRow sum(Keep keep) const {
    DryRunRow total;
    for (const DryRunRow& r : rows_) {
      if (!keep(r)) continue;
      total.calls += r.calls;
      total.messages += r.messages;
      total.bytes += r.bytes;
      total.seconds += r.seconds;
    }
    return total;
  }
  DryRunRow total() const {
    return sum([](const DryRunRow&) { return true; });
  }
  DryRunRow axis(std::string_view name) const {
    return sum([&](const DryRunRow& r) { return r.axis == name; });
  }
  DryRunRow collective(Collective kind) const {
    return sum([&](const DryRunRow& r) { return r.collective == kind; });
  }
  /// Forgets what was counted.
  void reset() { rows_.clear(); }

  /// As Markdown: a row each, the total last.
  std::string table() const {
    std::string s =
        "| axis | collective | ranks | link | calls | messages | bytes | ms |\n|---|---|---|---|---|---|---|---|\n";
    for (const DryRunRow& r : rows_)
      append_row(s, r.axis.empty() ? "-" : r.axis.c_str(), to_string(r.collective),
                 detail::text(r.ranks, r.across_nodes ? " | across nodes" : " | within a node"), r);
    append_row(s, "total", "", std::string(" |"), total());
    return s;
  }

  // Below: for the library's own layers.
  void add(const DryRunRow& call) {
    for (DryRunRow& r : rows_)
      if (r.collective == call.collective && r.ranks == call.ranks && r.across_nodes == call.across_nodes &&
          r.axis == call.axis) {
        r.calls += call.calls;
        r.messages += call.messages;
        r.bytes += call.bytes;
        r.seconds += call.seconds;
        return;
      }
    rows_.push_back(call);
  }

 private:
  static void append_row(std::string& s, const char* axis, const char* collective, const std::string& group,
                         const DryRunRow& r) {
    char ms[32];
    std::snprintf(ms, sizeof ms, "%.3f", r.seconds * 1e3);
    s += detail::text("| ", axis, " | ", collective, " | ", group, " | ", r.calls, " | ", r.messages, " | ", r.bytes,
                      " | ", static_cast<const char*>(ms), " |\n");
  }

  std::vector<DryRunRow> rows_;
};

namespace detail {

struct DryRunWorld {
  DryRunOptions options;
  DryRunLedger ledger;
  std::string aborted;  // why; empty: it goes on
  std::uint64_t groups = 0;
};

}  // namespace detail

/// One rank of a world of any size, the others left out: `DryRunCommunicator world(rank, 1000000); program(world);
/// puts(world.ledger().table().c_str());`.
///
/// Moves nothing. Results have their shapes; values are those of a run where the other ranks' parts are zero, but for a
/// pending product, maximum or minimum, which is this rank's own term, and for `distribute_tensor`, which takes every rank's own
/// data for the source's. What the program does with the values must not decide what it communicates.
/// Ranks that one process runs one after the other are worlds of their own. A handle: cheap to copy; one thread at a
/// time may use it. Throws what other communicators throw for arguments that do not fit, PeerFailedError after abort().
class DryRunCommunicator {
 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  /// Checked and Traced (comm/decorators.hpp) add nothing.
  static constexpr bool compares_calls = true;
  static constexpr bool traces_calls = true;
  static constexpr std::size_t staged_limit = 32768;
  static constexpr bool writes_peers = true;
  /// No body of an exchange runs.
  static constexpr bool peerless = true;

  DryRunCommunicator(int rank, int size, const DryRunOptions& options = {})
      : world_(std::make_shared<detail::DryRunWorld>()), rank_(rank), size_(size) {
    SHARDWISE_REQUIRE(size > 0 && rank >= 0 && rank < size,
                      detail::text("shardwise::DryRunCommunicator: no rank ", rank, " in a world of ", size));
    SHARDWISE_REQUIRE(options.ranks_per_node > 0,
                      detail::text("shardwise::DryRunCommunicator: nodes of ", options.ranks_per_node, " ranks"));
    world_->options = options;
    across_nodes_ = size > options.ranks_per_node;
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  std::uint64_t id() const { return id_; }

  Name axis() const { return axis_; }
  DryRunCommunicator with_axis(Name axis) const {
    DryRunCommunicator c = *this;
    c.axis_ = axis;
    return c;
  }
  /// Nobody is waited for.
  std::chrono::milliseconds deadline() const { return deadline_; }
  DryRunCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    SHARDWISE_REQUIRE(deadline.count() > 0,
                      detail::text("shardwise::with_deadline: a deadline is positive, not ", deadline.count(), " ms"));
    DryRunCommunicator c = *this;
    c.deadline_ = deadline;
    return c;
  }

  /// What messages cost in this group: what the planner plans with.
  CostModel cost_model() const { return across_nodes_ ? world_->options.across_nodes : world_->options.within_node; }
  /// What was counted, in this group and all others of its world.
  DryRunLedger& ledger() const { return world_->ledger; }

  // ---- exchanges ------------------------------------------------------------------------------------------------

  void exchange(const CallInfo& call, const void*, std::size_t, void*, const PeersFunction&) const { count(call); }
  void exchange_staged(const CallInfo& call, const void*, std::size_t, const PeersFunction&) const { count(call); }

  /// Counts a call that has its bytes; its messages too, where it brings them.
  void count(const CallInfo& call) const {
    SHARDWISE_REQUIRE(world_->aborted.empty(), detail::text("rank ", world_rank(rank_), " aborted: ", world_->aborted),
                      PeerFailedError);
    DryRunRow row{std::string(axis_.view()), call.collective, size_, across_nodes_, 1, 0, call.bytes, 0};
    row.messages = call.messages >= 0 ? call.messages : usual_messages(call.collective);
    const CostModel cost = cost_model();
    row.seconds =
        cost.seconds_per_collective + cost.seconds(static_cast<double>(row.messages), static_cast<double>(row.bytes));
    world_->ledger.add(row);
    if (call.collective != Collective::barrier) detail::trace(call.collective, call.dtype, axis_.view(), call.bytes);
  }

  // ---- collectives: needs and bytes as on every communicator -----------------------------------------------------

  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    const std::int64_t n = length(in);
    require("all_gather", "the output", length(out), n * size_);
    place(in, out, rank_ * n);
    count<T>(Collective::all_gather, n * (size_ - 1));
  }
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                    std::span<const std::int64_t> counts) const {
    require_counts("all_gather_v", counts, counts[index()], length(in), length(out));
    place(in, out, before(counts));
    count<T>(Collective::all_gather, length(out) - length(in));
  }
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    require("reduce_scatter", "the input", length(in), length(out) * size_);
    take(in, out, rank_ * length(out));
    count<T>(Collective::reduce_scatter, length(out) * (size_ - 1), op);
  }
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                        std::span<const std::int64_t> counts, ReduceOp op) const {
    require_counts("reduce_scatter_v", counts, counts[index()], length(out), length(in));
    take(in, out, before(counts));
    count<T>(Collective::reduce_scatter, length(out) * (size_ - 1), op);
  }
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    require("all_reduce", "the output", length(out), length(in));
    take(in, out, 0);
    count<T>(Collective::all_reduce, 2 * length(in) * (size_ - 1) / size_, op);
  }
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    require_counts("all_to_all_v", send_counts, 0, 0, length(in));
    require_counts("all_to_all_v", recv_counts, 0, 0, length(out));
    const std::int64_t own = recv_counts[index()];
    require("all_to_all_v", "what this rank sends to itself", send_counts[index()], own);
    const auto mine = in.subspan(static_cast<std::size_t>(before(send_counts)), static_cast<std::size_t>(own));
    place<T>(mine, out, before(recv_counts));
    CallInfo call = info<T>(Collective::all_to_all, length(out) - own);
    call.messages = 0;
    for (std::size_t r = 0; r < recv_counts.size(); ++r) call.messages += r != index() && recv_counts[r] > 0 ? 1 : 0;
    count(call);
  }
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    require_rank("broadcast", root);
    count<T>(Collective::broadcast, rank_ == root ? 0 : length(data));
  }
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    require_rank("scatter", root);
    if (rank_ == root) require("scatter", "the input", length(in), length(out) * size_);
    receive_from_root(in, out, rank_ * length(out), root);
  }
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> counts, std::span<T> out,
                 int root) const {
    require_rank("scatter_v", root);
    require_counts("scatter_v", counts, counts[index()], length(out), rank_ == root ? length(in) : -1);
    receive_from_root(in, out, before(counts), root);
  }
  template <Element T>
  void send(std::span<const T>, int dest) const {
    require_peer("send", dest);
    count<T>(Collective::send, 0);
  }
  template <Element T>
  void recv(std::span<T> data, int source) const {
    require_peer("recv", source);
    clear(data);
    count<T>(Collective::recv, length(data));
  }
  void barrier() const {
    CallInfo call;
    call.collective = Collective::barrier;
    count(call);
  }

  // ---- groups ---------------------------------------------------------------------------------------------------

  /// The group of these ranks of this communicator, in this order; this rank is one of them. Meshes ask for theirs so:
  /// nothing that only the other ranks know is needed.
  DryRunCommunicator subgroup(const std::vector<int>& ranks) const {
    DryRunCommunicator c = *this;
    auto members = std::make_shared<std::vector<int>>();
    members->reserve(ranks.size());
    c.rank_ = -1;
    c.across_nodes_ = false;
    const int per_node = world_->options.ranks_per_node;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      require_rank("subgroup", ranks[i]);
      if (ranks[i] == rank_) c.rank_ = static_cast<int>(i);
      members->push_back(world_rank(ranks[i]));
      if (members->back() / per_node != members->front() / per_node) c.across_nodes_ = true;
    }
    SHARDWISE_REQUIRE(c.rank_ >= 0, detail::text("shardwise::subgroup: rank ", rank_, " is not among the ranks"));
    c.size_ = static_cast<int>(ranks.size());
    c.members_ = std::move(members);
    c.id_ = ++world_->groups;
    return c;
  }

  /// The group of the ranks whose `choose(rank)`, a pair (color, key), has this rank's color, as split() would have it;
  /// nothing for a negative color. Asks for the choice of every rank.
  template <class Choose>
    requires std::is_invocable_v<Choose&, int>
  std::optional<DryRunCommunicator> split(Choose choose) const {
    const int color = choose(rank_).first;
    if (color < 0) return std::nullopt;
    std::vector<std::pair<int, int>> members;  // key, rank
    for (int r = 0; r < size_; ++r)
      if (const auto choice = choose(r); choice.first == color) members.emplace_back(choice.second, r);
    std::sort(members.begin(), members.end());
    std::vector<int> ranks;
    for (const auto& member : members) ranks.push_back(member.second);
    return subgroup(ranks);
  }
  /// Throws `Error`, but for a negative color and for a world of one: what the others choose is not known here.
  std::optional<DryRunCommunicator> split(int color, int key) const {
    if (color < 0) return std::nullopt;
    SHARDWISE_REQUIRE(size_ == 1,
                      "shardwise::split: in a dry run nobody says what the other ranks choose; make a mesh, or write "
                      "split([](int rank) { return std::pair(color, key); }) with the choice of every rank");
    return split([&](int) { return std::pair(color, key); });
  }

  /// Every later call throws PeerFailedError with the reason.
  void abort(std::string reason) const {
    world_->aborted = reason.empty() ? std::string("no reason") : std::move(reason);
  }

 private:
  std::size_t index() const { return static_cast<std::size_t>(rank_); }
  int world_rank(int r) const { return members_ == nullptr ? r : (*members_)[static_cast<std::size_t>(r)]; }
  template <class T>
  static std::int64_t length(std::span<T> s) {
    return static_cast<std::int64_t>(s.size());
  }
  std::int64_t before(std::span<const std::int64_t> counts) const {
    std::int64_t n = 0;
    for (std::size_t r = 0; r < index(); ++r) n += counts[r];
    return n;
  }

  // What a call takes that does not say: doubling for what all ranks share alike, else one message a peer.
  std::int64_t usual_messages(Collective collective) const {
    std::int64_t rounds = 0;
    for (std::int64_t reached = 1; reached < size_; reached *= 2) ++rounds;
    switch (collective) {
      case Collective::all_reduce: return 2 * rounds;
      case Collective::all_to_all: return size_ - 1;
      case Collective::send:
      case Collective::recv: return 1;
      case Collective::none: return 0;
      default: return rounds;
    }
  }

  template <class T>
  static CallInfo info(Collective collective, std::int64_t received) {
    CallInfo call;
    call.collective = collective;
    call.dtype = dtype_of<T>;
    call.bytes = received * static_cast<std::int64_t>(sizeof(T));
    return call;
  }
  template <class T>
  void count(Collective collective, std::int64_t received) const {
    count(info<T>(collective, received));
  }
  template <class T>
  void count(Collective collective, std::int64_t received, ReduceOp op) const {
    SHARDWISE_REQUIRE(reducible<T>(op), detail::text("shardwise::", to_string(collective),
                                                     ": complex numbers have no order, so no ", to_string(op)));
    count(info<T>(collective, received));
  }

  [[gnu::noinline]] static void copy_bytes(void* out, const void* in, std::size_t bytes) {
    if (bytes > 0 && out != in) std::memmove(out, in, bytes);
  }
  [[gnu::noinline]] static void clear_bytes(void* out, std::size_t bytes) {
    if (bytes > 0) std::memset(out, 0, bytes);
  }
  template <class T>
  static void clear(std::span<T> out) {
    clear_bytes(out.data(), out.size_bytes());
  }
  // out = in at `at`, zero elsewhere.
  template <class T>
  static void place(std::span<const T> in, std::span<T> out, std::int64_t at) {
    const auto first = static_cast<std::size_t>(at);
    copy_bytes(out.data() + first, in.data(), in.size_bytes());
    clear(out.first(first));
    clear(out.subspan(first + in.size()));
  }
  // out = in from `at` on.
  template <class T>
  static void take(std::span<const T> in, std::span<T> out, std::int64_t at) {
    copy_bytes(out.data(), in.data() + at, out.size_bytes());
  }
  template <class T>
  void receive_from_root(std::span<const T> in, std::span<T> out, std::int64_t at, int root) const {
    if (rank_ == root)
      take(in, out, at);
    else
      clear(out);
    count<T>(Collective::scatter, rank_ == root ? 0 : length(out));
  }

  void require(const char* function, const char* what, std::int64_t has, std::int64_t needs) const {
    SHARDWISE_REQUIRE(has == needs,
                      detail::text("shardwise::", function, ": ", what, " has ", has, " elements, needed are ", needs,
                                   " (", size_, " ranks)"),
                      ShapeError);
  }
  // The part of this rank, and all parts together unless `whole` is negative.
  void require_counts(const char* function, std::span<const std::int64_t> counts, std::int64_t part, std::int64_t has,
                      std::int64_t whole) const {
    require(function, "a list of counts", length(counts), size_);
    std::int64_t total = 0;
    for (const std::int64_t c : counts) {
      SHARDWISE_REQUIRE(c >= 0, detail::text("shardwise::", function, ": a count of ", c), ShapeError);
      total += c;
    }
    require(function, "this rank's part", has, part);
    if (whole >= 0) require(function, "the whole", whole, total);
  }
  void require_rank(const char* function, int r) const {
    SHARDWISE_REQUIRE(r >= 0 && r < size_, detail::text("shardwise::", function, ": no rank ", r, " among ", size_));
  }
  void require_peer(const char* function, int peer) const {
    require_rank(function, peer);
    SHARDWISE_REQUIRE(peer != rank_, detail::text("shardwise::", function, ": rank ", peer, " is its own peer"));
  }

  std::shared_ptr<detail::DryRunWorld> world_;
  std::shared_ptr<const std::vector<int>> members_;  // their ranks in the world; null: the world
  int rank_;
  int size_;
  bool across_nodes_ = false;
  std::uint64_t id_ = 0;
  Name axis_;
  std::chrono::milliseconds deadline_{300000};
};

}  // namespace shardwise
