// redistribute_async: a move in two halves. The start offers this rank's part and returns at once, wait() takes what this rank
// needs; between them the ranks compute, and none waits for a late one. Layer: redistribute.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/trace.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/owned_move.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/redistribute/target.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

/// A communicator whose exchanges come in two halves. Over others, and in groups that exchange messages, a move is done at its
/// start.
template <class C>
concept PostingCommunicator =
    requires(const C& c, typename C::Posted& posted, const CallInfo& call, detail::Buffer in, std::size_t in_bytes) {
      { c.post(call, std::move(in), in_bytes) } -> std::same_as<std::shared_ptr<typename C::Posted>>;
      posted.finish(detail::ExchangeBody{});
      { posted.ready() } -> std::same_as<bool>;
      { posted.input_is_free() } -> std::same_as<bool>;
      posted.wait_for_readers();
    };

namespace detail {

// A move that is under way, as its handles see it.
struct AsyncOperation {
  virtual ~AsyncOperation() = default;
  virtual void finish(Buffer& out) = 0;  // `out` changes only when it succeeds
  virtual bool ready() const = 0;
  virtual bool input_is_free() const = 0;
  virtual void wait_for_readers() = 0;
};

// Compiled once a kind of communicator.
template <class Comm, bool Interleaved>
struct AsyncMove final : AsyncOperation {
  AsyncMove(const OwnedMove<Interleaved>& m, const Comm& group, Buffer in) : move(m), module(trace_state().module) {
    const std::size_t bytes = move.input_bytes();
    if (!in.owns() && bytes > 0) {  // the caller's memory may be gone before the last rank has read it
      Buffer own(bytes);
      std::memcpy(own.data(), in.data(), bytes);
      in = std::move(own);
    }
    posted = group.post(move.call(), std::move(in), bytes);
  }

  void finish(Buffer& out) override {
    if (done) return;
    Buffer result(move.output_bytes());
    struct Restore {
      std::string_view before;
      ~Restore() { trace_state().module = before; }
    } const restore{std::exchange(trace_state().module, module)};
    posted->finish([&](const Peers& peers) {
      move.prepare(result.data());
      move.pull_from(peers.in, result.data());
    });
    move.complete(result.data());
    out = std::move(result);
    done = true;
  }
  bool ready() const override { return done || posted->ready(); }
  bool input_is_free() const override { return posted->input_is_free(); }
  void wait_for_readers() override { posted->wait_for_readers(); }

  OwnedMove<Interleaved> move;
  std::string_view module;
  std::shared_ptr<typename Comm::Posted> posted;
  bool done = false;
};

}  // namespace detail

/// A tensor on its way: what `redistribute_async` gives. Copies are handles on the same move. It belongs to the rank's thread, as
/// tensors do. Dropping it never waits: the other ranks get what they need from this one all the same.
/// PyTorch: `AsyncCollectiveTensor`.
template <class Y>
class AsyncTensor {
 public:
  /// No move: every use but assignment is undefined.
  AsyncTensor() = default;

  /// The tensor, once all ranks have started the move; the same one at every call. Waits for no rank to wait.
  /// Throws: CommError and its kinds, again at every call.
  Y wait() const {
    if (move_ != nullptr) move_->finish(y_.impl()->buffer);
    return y_;
  }
  /// Whether `wait()` would return, or throw, at once.
  bool ready() const { return move_ == nullptr || move_->ready(); }
  /// Whether every rank has taken what it needs of this rank's input, so that the input may be written.
  bool input_is_free() const { return move_ == nullptr || move_->input_is_free(); }
  /// Returns when it is so: when every rank has come through its `wait()`, or dropped its handle.
  /// Throws: PeerFailedError, TimeoutError.
  void wait_for_readers() const {
    if (move_ != nullptr) move_->wait_for_readers();
  }

  // Below: for the library's own layers.
  AsyncTensor(Y y, std::shared_ptr<detail::AsyncOperation> move) : y_(std::move(y)), move_(std::move(move)) {}

 private:
  Y y_;
  std::shared_ptr<detail::AsyncOperation> move_;
};

namespace detail {

template <class Target, class X>
AsyncTensor<Target> redistribute_async_to(const X& x) {
  using Comm = typename X::Mesh::Communicator;
  if constexpr (std::is_same_v<Target, X>) {
    return {x, nullptr};
  } else if constexpr (!PostingCommunicator<Comm>) {
    return {redistribute_to<Target>(x), nullptr};
  } else {
    const auto& mesh = x.mesh();
    if (!mesh.is_member()) return {redistribute_to<Target>(x), nullptr};
    constexpr bool interleaved = either_interleaved<X, Target>;
    const Extents& global = x.impl()->global;
    const OwnedMove<interleaved> move(view_of<X, Target>(mesh), mesh.grid().coordinate.data(), global,
                                      dtype_of<typename X::value_type>);
    const std::uint32_t axes = move.meeting_axes();
    if (axes == 0) return {redistribute_to<Target>(x), nullptr};
    if constexpr (ExchangesPacked<Comm>)
      if (!mesh.group(axes).direct()) return {redistribute_to<Target>(x), nullptr};
    // Its elements come with wait().
    Target y(share_impl(Buffer(), global, local_extents<typename Target::layout_type>(mesh, global)), mesh);
    record_redistribute(y, x);  // at its place in the program, and before a peer is told
    return {std::move(y), make_cached<AsyncMove<Comm, interleaved>>(move, mesh.group(axes), x.impl()->buffer)};
  }
}

}  // namespace detail

/// Starts a move to other placements, one per mesh axis or `On<"axis", P>`, and returns at once: `auto y =
/// redistribute_async<Shard<1>>(x); ...; use(y.wait());`. So among threads, and among processes of one host that share memory;
/// where ranks send messages the move is done before it returns.
///
/// `x` may be dropped while the move is under way, and read; its elements must not be written before every rank has taken its part
/// (`input_is_free()`; what a collective that follows every rank's wait() on the same ranks implies). Several moves may be
/// under way, other collectives in between, and the order of the waits is each rank's own; the order of the starts is the
/// same on all ranks of an axis. A tensor in the caller's memory (`view`) is copied at the start.
/// Moves: as redistribute, at wait(); of a Partial to Replicate each rank reduces the whole by itself.
/// Needs, Gives: as redistribute. Memory: the output, from wait() on; the input, until all have read it.
/// Gradient: as redistribute. Ranks: all of the mesh start; wait() is each rank's own affair.
/// Throws: as redistribute: from wait(), whose deadline begins when it is called, and from the start where the
/// communicator has failed before.
/// PyTorch: `DTensor.redistribute(async_op=True)`.
template <class... P, class T, std::size_t R, class Mesh, class... From>
  requires(sizeof...(P) > 0)
auto redistribute_async(const BasicTensor<T, R, Distributed<Mesh, From...>>& x) {
  using X = BasicTensor<T, R, Distributed<Mesh, From...>>;
  detail::check_communicator<typename Mesh::Communicator>();
  if constexpr (detail::check_target<X, P...>()) return detail::redistribute_async_to<detail::TargetOf<X, P...>>(x);
}

}  // namespace shardwise
