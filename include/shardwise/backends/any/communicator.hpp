// AnyCommunicator: ranks that are threads or processes, as the environment decides. Layer: backends/any.
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
#include <variant>

#include <shardwise/backends/process/communicator.hpp>
#include <shardwise/backends/thread.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>

namespace shardwise {

namespace detail {

// What either backend's post gives.
class AnyPosted {
 public:
  explicit AnyPosted(std::shared_ptr<ThreadPosted> threads) : threads_(std::move(threads)) {}
  explicit AnyPosted(std::shared_ptr<SharedPosted> processes) : processes_(std::move(processes)) {}

  void finish(PeersFunction body) { threads_ != nullptr ? threads_->finish(body) : processes_->finish(body); }
  bool ready() const { return threads_ != nullptr ? threads_->ready() : processes_->ready(); }
  bool input_is_free() const { return threads_ != nullptr ? threads_->input_is_free() : processes_->input_is_free(); }
  void wait_for_readers() { threads_ != nullptr ? threads_->wait_for_readers() : processes_->wait_for_readers(); }

 private:
  std::shared_ptr<ThreadPosted> threads_;
  std::shared_ptr<SharedPosted> processes_;  // or else
};

}  // namespace detail

/// One of the backends that this program has, with one branch a call: programs that run on each of them are compiled once.
/// Every member does what it does there.
class AnyCommunicator {
 private:
  template <class F>
  decltype(auto) on(F&& f) const {
    if (const ThreadCommunicator* threads = std::get_if<ThreadCommunicator>(&ranks_)) return f(*threads);
    return f(*std::get_if<ProcessCommunicator>(&ranks_));
  }

 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  /// Checked and Traced (comm/decorators.hpp) add nothing.
  static constexpr bool compares_calls = true;
  static constexpr bool traces_calls = true;
  static constexpr std::size_t staged_limit = ThreadCommunicator::staged_limit;
  static_assert(staged_limit == ProcessCommunicator::staged_limit);
  /// Not by all of them: `Peers::out` says.
  static constexpr bool writes_peers = false;

  AnyCommunicator(ThreadCommunicator c) : ranks_(std::move(c)) {}  // NOLINT: one of them is any of them
  AnyCommunicator(ProcessCommunicator c) : ranks_(std::move(c)) {}  // NOLINT

  int rank() const {
    return on([](const auto& c) { return c.rank(); });
  }
  int size() const {
    return on([](const auto& c) { return c.size(); });
  }
  std::uint64_t id() const {
    return on([](const auto& c) { return c.id(); });
  }
  Name axis() const {
    return on([](const auto& c) { return c.axis(); });
  }
  AnyCommunicator with_axis(Name axis) const {
    return on([&](const auto& c) { return AnyCommunicator(c.with_axis(axis)); });
  }
  std::chrono::milliseconds deadline() const {
    return on([](const auto& c) { return c.deadline(); });
  }
  AnyCommunicator with_deadline(std::chrono::milliseconds deadline) const {
    return on([&](const auto& c) { return AnyCommunicator(c.with_deadline(deadline)); });
  }

  void exchange(const CallInfo& call, const void* in, std::size_t in_bytes, void* out, PeersFunction body) const {
    on([&](const auto& c) { c.exchange(call, in, in_bytes, out, body); });
  }
  void exchange_staged(const CallInfo& call, const void* in, std::size_t in_bytes, PeersFunction body) const {
    on([&](const auto& c) { c.exchange_staged(call, in, in_bytes, body); });
  }

  using Posted = detail::AnyPosted;
  std::shared_ptr<Posted> post(const CallInfo& call, detail::Buffer in, std::size_t in_bytes) const {
    return on([&](const auto& c) { return detail::make_cached<Posted>(c.post(call, std::move(in), in_bytes)); });
  }

  bool direct() const {
    const ProcessCommunicator* processes = std::get_if<ProcessCommunicator>(&ranks_);
    return processes == nullptr || processes->direct();
  }
  void exchange_packed(const CallInfo& call, std::span<const std::int64_t> sends,
                       std::span<const std::int64_t> receives, PackFunction pack, PeersFunction body) const {
    const ProcessCommunicator* processes = std::get_if<ProcessCommunicator>(&ranks_);
    if (processes != nullptr) processes->exchange_packed(call, sends, receives, pack, body);
  }

  template <Element T>
  void all_gather(std::span<const std::type_identity_t<T>> in, std::span<T> out) const {
    on([&](const auto& c) { c.all_gather(in, out); });
  }
  template <Element T>
  void all_gather_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                    std::span<const std::int64_t> counts) const {
    on([&](const auto& c) { c.all_gather_v(in, out, counts); });
  }
  template <Element T>
  void reduce_scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    on([&](const auto& c) { c.reduce_scatter(in, out, op); });
  }
  template <Element T>
  void reduce_scatter_v(std::span<const std::type_identity_t<T>> in, std::span<T> out,
                        std::span<const std::int64_t> counts, ReduceOp op) const {
    on([&](const auto& c) { c.reduce_scatter_v(in, out, counts, op); });
  }
  template <Element T>
  void all_reduce(std::span<const std::type_identity_t<T>> in, std::span<T> out, ReduceOp op) const {
    on([&](const auto& c) { c.all_reduce(in, out, op); });
  }
  template <Element T>
  void all_to_all_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> send_counts,
                    std::span<T> out, std::span<const std::int64_t> recv_counts) const {
    on([&](const auto& c) { c.all_to_all_v(in, send_counts, out, recv_counts); });
  }
  template <Element T>
  void broadcast(std::span<T> data, int root) const {
    on([&](const auto& c) { c.broadcast(data, root); });
  }
  template <Element T>
  void scatter(std::span<const std::type_identity_t<T>> in, std::span<T> out, int root) const {
    on([&](const auto& c) { c.scatter(in, out, root); });
  }
  template <Element T>
  void scatter_v(std::span<const std::type_identity_t<T>> in, std::span<const std::int64_t> counts, std::span<T> out,
                 int root) const {
    on([&](const auto& c) { c.scatter_v(in, counts, out, root); });
  }
  template <Element T>
  void send(std::span<const T> data, int dest) const {
    on([&](const auto& c) { c.send(data, dest); });
  }
  template <Element T>
  void recv(std::span<T> data, int source) const {
    on([&](const auto& c) { c.recv(data, source); });
  }
  void barrier() const {
    on([](const auto& c) { c.barrier(); });
  }
  std::optional<AnyCommunicator> split(int color, int key) const {
    return on([&](const auto& c) -> std::optional<AnyCommunicator> {
      if (auto part = c.split(color, key)) return AnyCommunicator(std::move(*part));
      return std::nullopt;
    });
  }
  void abort(std::string reason) const {
    on([&](const auto& c) { c.abort(std::move(reason)); });
  }

 private:
  std::variant<ThreadCommunicator, ProcessCommunicator> ranks_;
};

static_assert(DirectAccessCommunicator<AnyCommunicator> && ExchangesPacked<AnyCommunicator>);

}  // namespace shardwise
