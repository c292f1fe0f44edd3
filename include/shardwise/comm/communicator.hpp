// The Communicator concept: what a mesh axis and the redistribution need from a backend, and the refinement for
// ranks that reach each other's buffers. Concepts only, no code that communicates. Layer: comm.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>

namespace shardwise {

/// What the ranks of a direct exchange gave, indexed by rank.
struct Peers {
  int size;                    ///< ranks of the communicator
  const std::byte* const* in;  ///< what each rank offers for reading
  std::byte* const* out;       ///< where each rank may be written to; null where no rank writes another's memory
};

/// The body of an exchange, by reference: an exchange is compiled once, whatever is done in it. Lives no longer than the call
/// that it is written in.
class PeersFunction {
 public:
  template <class F>
    requires std::invocable<const F&, const Peers&>
  PeersFunction(const F& f)  // NOLINT: bodies are written as lambdas
      : object_(&f), call_([](const void* object, const Peers& peers) { (*static_cast<const F*>(object))(peers); }) {}
  void operator()(const Peers& peers) const { call_(object_, peers); }

 private:
  const void* object_;
  void (*call_)(const void*, const Peers&);
};

namespace detail {
// Says what is sent to each rank piece by piece, what needs no packing, and where what comes shall lie.
template <class F>
concept PacksPieces = requires(const F& f, int rank, std::size_t n, std::byte* to) {
  f.pack(rank, n, n, to);
  { f.source(rank) } -> std::same_as<const std::byte*>;
  { f.place(rank) } -> std::same_as<std::byte*>;
};
// And takes what comes piece by piece.
template <class F>
concept UnpacksPieces = PacksPieces<F> && requires(const F& f, int rank, std::size_t n, const std::byte* from) {
  { f.unpacks() } -> std::same_as<bool>;
  f.unpack(rank, n, n, from);
};
}  // namespace detail

/// What each rank is sent, by reference, as PeersFunction. A function `pack(rank, to)` that writes all of it; or an object with
///   pack(rank, at, bytes, to)   writes the bytes [at, at + bytes) of it: pieces that stay in a cache, in order
///   source(rank)                where it lies already, or null: then it is packed
///   place(rank)                 where what `rank` sends shall lie, or null: in memory that lasts as long as the call
/// and, where it takes that itself,
///   unpacks()                   whether it takes all that has no place: then the body may see null instead of it
///   unpack(rank, at, bytes, from)   takes the bytes [at, at + bytes) of it: pieces that stay in a cache, in any order
class PackFunction {
 public:
  template <class F>
    requires std::invocable<const F&, int, std::byte*>
  PackFunction(const F& f)  // NOLINT: bodies are written as lambdas
      : object_(&f), whole_([](const void* o, int rank, std::byte* to) { (*static_cast<const F*>(o))(rank, to); }) {}
  template <detail::PacksPieces F>
  PackFunction(const F& f)  // NOLINT
      : object_(&f), piece_([](const void* o, int rank, std::size_t at, std::size_t bytes, std::byte* to) {
          static_cast<const F*>(o)->pack(rank, at, bytes, to);
        }),
        source_([](const void* o, int rank) { return static_cast<const F*>(o)->source(rank); }),
        place_([](const void* o, int rank) { return static_cast<const F*>(o)->place(rank); }) {
    if constexpr (detail::UnpacksPieces<F>)
      if (f.unpacks())
        unpack_ = [](const void* o, int rank, std::size_t at, std::size_t bytes, const std::byte* from) {
          static_cast<const F*>(o)->unpack(rank, at, bytes, from);
        };
  }

  /// All of it, `bytes`.
  void operator()(int rank, std::size_t bytes, std::byte* to) const {
    if (!in_pieces()) return whole_(object_, rank, to);
    const std::byte* const from = source(rank);
    if (from == nullptr)
      pack(rank, 0, bytes, to);
    else if (from != to)
      std::memcpy(to, from, bytes);
  }
  bool in_pieces() const { return piece_ != nullptr; }
  /// Where in_pieces().
  void pack(int rank, std::size_t at, std::size_t bytes, std::byte* to) const { piece_(object_, rank, at, bytes, to); }
  const std::byte* source(int rank) const { return source_(object_, rank); }
  std::byte* place(int rank) const { return place_(object_, rank); }
  bool unpacks() const { return unpack_ != nullptr; }
  /// Where unpacks().
  void unpack(int rank, std::size_t at, std::size_t bytes, const std::byte* from) const {
    unpack_(object_, rank, at, bytes, from);
  }

 private:
  const void* object_;
  void (*whole_)(const void*, int, std::byte*) = nullptr;
  void (*piece_)(const void*, int, std::size_t, std::size_t, std::byte*) = nullptr;
  const std::byte* (*source_)(const void*, int) = nullptr;
  std::byte* (*place_)(const void*, int) = nullptr;
  void (*unpack_)(const void*, int, std::size_t, std::size_t, const std::byte*) = nullptr;
};

/// Knows its place.
template <class C>
concept RankedCommunicator = std::copyable<C> && requires(const C& c) {
  { c.rank() } -> std::same_as<int>;
  { c.size() } -> std::same_as<int>;
};

/// Says where its buffers live.
template <class C>
concept PlacedCommunicator = requires {
  { C::memory_space } -> std::convertible_to<MemorySpace>;
};

/// Carries the label of its errors and traces, and an identity that all its ranks share.
template <class C>
concept LabelledCommunicator = requires(const C& c, Name axis) {
  { c.axis() } -> std::same_as<Name>;
  { c.with_axis(axis) } -> std::same_as<C>;
  { c.id() } -> std::same_as<std::uint64_t>;
};

/// Gives up on ranks that do not come.
template <class C>
concept BoundedCommunicator = requires(const C& c, std::chrono::milliseconds deadline) {
  { c.deadline() } -> std::same_as<std::chrono::milliseconds>;
  { c.with_deadline(deadline) } -> std::same_as<C>;
};

template <class C, class T>
concept GatheringCommunicator =
    requires(const C& c, std::span<const T> in, std::span<T> out, std::span<const std::int64_t> counts) {
      c.all_gather(in, out);
      c.all_gather_v(in, out, counts);
    };

template <class C, class T>
concept ReducingCommunicator =
    requires(const C& c, std::span<const T> in, std::span<T> out, std::span<const std::int64_t> counts, ReduceOp op) {
      c.all_reduce(in, out, op);
      c.reduce_scatter(in, out, op);
      c.reduce_scatter_v(in, out, counts, op);
    };

template <class C, class T>
concept ExchangingCommunicator =
    requires(const C& c, std::span<const T> in, std::span<T> out, std::span<const std::int64_t> counts) {
      c.all_to_all_v(in, counts, out, counts);
    };

template <class C, class T>
concept RootedCommunicator =
    requires(const C& c, std::span<const T> in, std::span<T> out, std::span<const std::int64_t> counts, int root) {
      c.broadcast(out, root);
      c.scatter(in, out, root);
      c.scatter_v(in, counts, out, root);
    };

template <class C, class T>
concept MessagingCommunicator = requires(const C& c, std::span<const T> in, std::span<T> out, int peer) {
  c.send(in, peer);
  c.recv(out, peer);
};

template <class C>
concept SynchronisingCommunicator = requires(const C& c) { c.barrier(); };

template <class C>
concept SplittingCommunicator = requires(const C& c, int color, int key) {
  { c.split(color, key) } -> std::same_as<std::optional<C>>;
};

/// Can tell its peers that this rank gives up.
template <class C>
concept AbortableCommunicator = requires(const C& c, std::string reason) { c.abort(reason); };

/// What every backend gives. The collectives stand for all element types; float is looked at.
template <class C>
concept Communicator =
    RankedCommunicator<C> && PlacedCommunicator<C> && LabelledCommunicator<C> && BoundedCommunicator<C> &&
    GatheringCommunicator<C, float> && ReducingCommunicator<C, float> && ExchangingCommunicator<C, float> &&
    RootedCommunicator<C, float> && MessagingCommunicator<C, float> && SynchronisingCommunicator<C> &&
    SplittingCommunicator<C> && AbortableCommunicator<C>;

namespace detail {
struct ExchangeBody {
  void operator()(const Peers&) const noexcept {}
};
struct PackBody {
  void operator()(int, std::byte*) const noexcept {}
};
}  // namespace detail

/// Runs a body while every rank's buffers may be touched by every rank.
template <class C>
concept ExchangesInPlace = requires(const C& c, const CallInfo& call, const void* in, std::size_t in_bytes, void* out) {
  { C::writes_peers } -> std::convertible_to<bool>;
  c.exchange(call, in, in_bytes, out, detail::ExchangeBody{});
};

/// Runs a body over copies of small inputs, with one synchronisation.
template <class C>
concept ExchangesStaged = requires(const C& c, const CallInfo& call, const void* in, std::size_t in_bytes) {
  { C::staged_limit } -> std::convertible_to<std::size_t>;
  c.exchange_staged(call, in, in_bytes, detail::ExchangeBody{});
};

/// May have groups whose ranks see nothing of each other but messages: those that are not `direct()`. Moves `sends[r]` bytes,
/// which `pack` writes where there are any, to each rank r of the group, itself included, and runs a body over the
/// `receives[r]` bytes of each.
/// There is no communicator to which strides are given instead: MPI's derived types took 1.6 to 4.2 times a copy, other at every
/// start of a program, where packing by hand took 2.0 to 2.5; and pieces are packed while others are sent.
template <class C>
concept ExchangesPacked = requires(const C& c, const CallInfo& call, std::span<const std::int64_t> bytes) {
  { c.direct() } -> std::convertible_to<bool>;
  c.exchange_packed(call, bytes, bytes, detail::PackBody{}, detail::ExchangeBody{});
};

/// A communicator whose ranks address each other's buffers.
template <class C>
concept DirectAccessCommunicator = Communicator<C> && ExchangesInPlace<C> && ExchangesStaged<C>;

namespace detail {
/// Whether ranks follow each other's pointers, and write where they point to.
template <class C>
inline constexpr bool reads_all_memory = false;
template <DirectAccessCommunicator C>
inline constexpr bool reads_all_memory<C> = C::writes_peers;
}  // namespace detail

}  // namespace shardwise
