// Checked and Traced: decorators of any communicator. The backends of the library compare and tell their calls by themselves:
// around one that does, a decorator adds nothing. Layer: comm.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/base/lean.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise {

/// Compares the calls of its ranks before data moves, and throws MismatchError where they differ.
template <class C>
concept ComparesCalls = requires { requires C::compares_calls; };

/// Tells its calls to CommDebugMode.
template <class C>
concept TracesCalls = requires { requires C::traces_calls; };

namespace detail {

// C under another name: what gives another communicator gives a decorated one. `Self` has around(C), the same group, and
// around_part(C), a new one.
template <class Self, class C>
class Decorated : public C {
 public:
  Decorated(C c) : C(std::move(c)) {}  // NOLINT: a decorated communicator is a communicator

  Self with_axis(Name axis) const { return self().around(C::with_axis(axis)); }
  Self with_deadline(std::chrono::milliseconds deadline) const { return self().around(C::with_deadline(deadline)); }
  std::optional<Self> split(int color, int key) const {
    std::optional<C> part = C::split(color, key);
    return part ? std::optional<Self>(self().around_part(std::move(*part))) : std::nullopt;
  }
  Self subgroup(const std::vector<int>& ranks) const
    requires requires(const C& c) { c.subgroup(ranks); }
  {
    return self().around_part(C::subgroup(ranks));
  }

 protected:
  const Self& self() const { return static_cast<const Self&>(*this); }
  const C& inner() const { return *this; }
};

// And each call goes through before(call) and after(call) of `Self`: a message through before(call, rank), an exchange of pieces
// through before(call, counts that are sent, counts that are received).
template <class Self, class C>
class Instrumented : public Decorated<Self, C> {
  using Counts = std::span<const std::int64_t>;

 protected:
  using Base = Decorated<Self, C>;
  using Base::inner;
  using Base::self;

 public:
  using Base::Base;

  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    run(call<T>(Collective::all_gather, length(in), length(out) - length(in)), [&] { inner().all_gather(in, out); });
  }
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out, Counts counts) const {
    run(call<T>(Collective::all_gather, length(out), length(out) - length(in), counts),
        [&] { inner().all_gather_v(in, out, counts); });
  }
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    run(call<T>(Collective::reduce_scatter, length(in), length(in) - length(out), {}, op),
        [&] { inner().reduce_scatter(in, out, op); });
  }
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out, Counts counts,
                        ReduceOp op) const {
    run(call<T>(Collective::reduce_scatter, length(in), (inner().size() - 1) * length(out), counts, op),
        [&] { inner().reduce_scatter_v(in, out, counts, op); });
  }
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    const std::int64_t ranks = inner().size();
    run(call<T>(Collective::all_reduce, length(in), 2 * length(in) * (ranks - 1) / ranks, {}, op),
        [&] { inner().all_reduce(in, out, op); });
  }
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, Counts send_counts, std::span<T> out,
                    Counts recv_counts) const {
    const auto me = static_cast<std::size_t>(inner().rank());
    const std::int64_t own = me < recv_counts.size() ? recv_counts[me] : 0;
    const CallInfo info = call<T>(Collective::all_to_all, 0, length(out) - own);
    self().before(info, send_counts, recv_counts);
    inner().all_to_all_v(in, send_counts, out, recv_counts);
    self().after(info);
  }
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    CallInfo info = call<T>(Collective::broadcast, length(data), inner().rank() == root ? 0 : length(data));
    info.root = root;
    run(info, [&] { inner().broadcast(data, root); });
  }
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    CallInfo info = call<T>(Collective::scatter, length(out), inner().rank() == root ? 0 : length(out));
    info.root = root;
    run(info, [&] { inner().scatter(in, out, root); });
  }
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, Counts counts, std::span<T> out, int root) const {
    CallInfo info = call<T>(Collective::scatter, 0, inner().rank() == root ? 0 : length(out), counts);
    info.root = root;
    run(info, [&] { inner().scatter_v(in, counts, out, root); });
  }
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    const CallInfo info = call<T>(Collective::send, length(data), 0);
    self().before(info, dest);
    inner().send(data, dest);
    self().after(info);
  }
  template <Element T>
  void recv(std::span<T> data, int source) const {
    const CallInfo info = call<T>(Collective::recv, length(data), length(data));
    self().before(info, source);
    inner().recv(data, source);
    self().after(info);
  }
  void barrier() const {
    CallInfo info;
    info.collective = Collective::barrier;
    run(info, [&] { inner().barrier(); });
  }
  void exchange(const CallInfo& info, const void* in, std::size_t in_bytes, void* out, PeersFunction body) const
    requires ExchangesInPlace<C>
  {
    run(info, [&] { inner().exchange(info, in, in_bytes, out, body); });
  }
  void exchange_staged(const CallInfo& info, const void* in, std::size_t in_bytes, PeersFunction body) const
    requires ExchangesStaged<C>
  {
    run(info, [&] { inner().exchange_staged(info, in, in_bytes, body); });
  }
  void exchange_packed(const CallInfo& info, std::span<const std::int64_t> sends,
                       std::span<const std::int64_t> receives, PackFunction pack, PeersFunction body) const
    requires ExchangesPacked<C>
  {
    run(info, [&] { inner().exchange_packed(info, sends, receives, pack, body); });
  }

 private:
  template <class F>
  void run(const CallInfo& info, F operation) const {
    self().before(info);
    operation();
    self().after(info);
  }
  template <class T>
  static std::int64_t length(std::span<T> s) {
    return static_cast<std::int64_t>(s.size());
  }
  // `received`: elements from other ranks.
  template <class T>
  static CallInfo call(Collective collective, std::int64_t elements, std::int64_t received, Counts counts = {},
                       ReduceOp op = ReduceOp::sum) {
    CallInfo info;
    info.collective = collective;
    info.dtype = dtype_of<T>;
    info.op = op;
    info.shape = Extents(Shape<1>{elements});
    for (const std::int64_t n : counts) info.layout = (info.layout ^ static_cast<std::uint64_t>(n)) * 0x100000001b3u;
    info.bytes = received * static_cast<std::int64_t>(sizeof(T));
    return info;
  }
};

template <template <class> class D, class C, bool by_itself>
using Decoration = std::conditional_t<by_itself, Decorated<D<C>, C>, Instrumented<D<C>, C>>;

}  // namespace detail

/// Any communicator, with its calls compared across ranks before data moves: operation, element type, count, root, counts of all
/// ranks, and order. `Checked checked(world);` is used as `world` is.
///
/// Around a communicator that compares by itself it is that communicator. Around another one each collective gathers 64 bytes
/// a rank first, and of a message both sides tell each other as many. Throws: MismatchError that names both calls, on all ranks alike, and the
/// same from every later call.
template <Communicator C>
class Checked : public detail::Decoration<Checked, C, ComparesCalls<C>> {
  using Base = detail::Decoration<Checked, C, ComparesCalls<C>>;
  static_assert(
      ComparesCalls<C> || C::memory_space == MemorySpace::host,
      "shardwise::Checked: [K1] calls are compared in host memory, and this communicator's buffers lie on a device");

 public:
  static constexpr bool compares_calls = true;

  Checked(C c) : Base(std::move(c)) {  // NOLINT: a checked communicator is a communicator
    if constexpr (!ComparesCalls<C>) state_ = std::make_shared<State>();
  }

 private:
  friend Base;
  friend detail::Decorated<Checked, C>;

  // What is compared of a call: `bytes` may differ.
  struct Fingerprint {
    std::uint64_t order;
    std::int64_t collective, dtype, op, root, elements;
    std::uint64_t layout;
    std::uint64_t sizes;
  };
  static_assert(sizeof(Fingerprint) == 64);
  struct State {
    std::uint64_t order = 0;
    std::string failed;  // why; empty: nothing has
  };

  Checked around(C c) const {
    Checked same(std::move(c));
    same.state_ = state_;
    return same;
  }
  Checked around_part(C c) const { return Checked(std::move(c)); }

  static Fingerprint fingerprint(const CallInfo& call, std::uint64_t order) {
    Fingerprint f{};
    f.order = order;
    f.collective = static_cast<std::int64_t>(call.collective);
    f.dtype = static_cast<std::int64_t>(call.dtype);
    f.op = static_cast<std::int64_t>(call.op);
    f.root = call.root;
    f.elements = call.shape.elements();
    f.layout = call.layout;
    for (int d = 0; d < call.shape.rank; ++d)
      f.sizes = (f.sizes ^ static_cast<std::uint64_t>(call.shape[d])) * 0x100000001b3u;
    return f;
  }
  static CallInfo call_of(const Fingerprint& f) {
    CallInfo call;
    call.collective = static_cast<Collective>(f.collective);
    call.dtype = static_cast<DType>(f.dtype);
    call.op = static_cast<ReduceOp>(f.op);
    call.root = static_cast<int>(f.root);
    call.shape = detail::Extents(Shape<1>{f.elements});
    return call;
  }
  static std::span<const std::uint8_t> bytes_of(const Fingerprint& f) {
    return detail::span_of(reinterpret_cast<const std::uint8_t*>(&f), sizeof f);
  }

  void before(const CallInfo& call) const {
    refuse_after_failure();
    const auto ranks = static_cast<std::size_t>(this->size());
    std::vector<Fingerprint> all(ranks);
    const Fingerprint mine = fingerprint(call, state_->order++);
    this->inner().all_gather(bytes_of(mine),
                             detail::span_of(reinterpret_cast<std::uint8_t*>(all.data()), ranks * sizeof mine));
    for (std::size_t r = 1; r < ranks; ++r)
      if (std::memcmp(&all[r], &all[0], sizeof mine) != 0) refuse(0, all[0], static_cast<int>(r), all[r]);
  }
  void before(const CallInfo& call, int peer) const {
    refuse_after_failure();
    const Fingerprint mine = fingerprint(call, 0);
    Fingerprint theirs{};
    const auto reply = detail::span_of(reinterpret_cast<std::uint8_t*>(&theirs), sizeof theirs);
    const bool sends = call.collective == Collective::send;
    if (sends) this->inner().send(bytes_of(mine), peer);
    this->inner().recv(reply, peer);
    if (!sends) this->inner().send(bytes_of(mine), peer);
    if (theirs.dtype == mine.dtype && theirs.elements == mine.elements) return;
    sends ? refuse(this->rank(), mine, peer, theirs) : refuse(peer, theirs, this->rank(), mine);
  }

  // What each rank sends to each other one is what that one receives.
  void before(const CallInfo& call, std::span<const std::int64_t> sent, std::span<const std::int64_t> received) const {
    before(call);
    const auto ranks = static_cast<std::size_t>(this->size());
    detail::List<std::int64_t> mine(2 * ranks), all(2 * ranks * ranks);
    for (std::size_t r = 0; r < ranks; ++r) {
      mine[r] = sent.size() == ranks ? sent[r] : -1;
      mine[ranks + r] = received.size() == ranks ? received[r] : -1;
    }
    this->inner().all_gather(detail::span_of<const std::int64_t>(mine.data(), mine.size()),
                             detail::span_of(all.data(), all.size()));
    for (std::size_t a = 0; a < ranks; ++a)
      for (std::size_t b = 0; b < ranks; ++b)
        if (const std::int64_t out = all[2 * ranks * a + b], in = all[2 * ranks * b + ranks + a]; out != in)
          refuse(detail::text("shardwise::all_to_all: rank ", a, " sends ", out, " elements to rank ", b,
                              ", which receives ", in));
  }
  void after(const CallInfo&) const {}

  void refuse_after_failure() const {
    if (!state_->failed.empty()) throw MismatchError(state_->failed);
  }
  [[noreturn, gnu::cold]] void refuse(int a, const Fingerprint& call_a, int b, const Fingerprint& call_b) const {
    const std::string rank_a = detail::text("rank ", a), rank_b = detail::text("rank ", b);
    refuse(detail::mismatch_text(this->axis(), rank_a, call_of(call_a), rank_b, call_of(call_b)));
  }
  [[noreturn, gnu::cold]] void refuse(std::string why) const {
    state_->failed = std::move(why);
    throw MismatchError(state_->failed);
  }

  std::shared_ptr<State> state_;  // of all handles of the group on this rank; null where C compares by itself
};

/// Any communicator, with its calls told to CommDebugMode once they have succeeded: operation, axis, bytes received.
///
/// Around a communicator that tells by itself it is that communicator. Of `Traced` and `Checked` the first stands outside: what
/// `Checked` gathers is not the program's.
template <Communicator C>
class Traced : public detail::Decoration<Traced, C, TracesCalls<C>> {
  using Base = detail::Decoration<Traced, C, TracesCalls<C>>;

 public:
  static constexpr bool traces_calls = true;

  Traced(C c) : Base(std::move(c)) {}  // NOLINT: a traced communicator is a communicator

 private:
  friend Base;
  friend detail::Decorated<Traced, C>;

  Traced around(C c) const { return Traced(std::move(c)); }
  Traced around_part(C c) const { return Traced(std::move(c)); }
  template <class... Counts>
  void before(const CallInfo&, const Counts&...) const {}
  void after(const CallInfo& call) const {
    if (call.collective != Collective::barrier && call.bytes != CallInfo::part_of_another)
      detail::trace(call.collective, call.dtype, this->axis().view(), call.bytes);
  }
};

}  // namespace shardwise
