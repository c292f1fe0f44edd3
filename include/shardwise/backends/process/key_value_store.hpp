// KeyValueStore: what the parts of a process world see of the rendezvous. Notice: what the store tells every rank about
// another one. Layer: backends/process.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <shardwise/comm/failure.hpp>

namespace shardwise::detail {

// Keys and values that all ranks of a run share. Any thread may call.
class KeyValueStore {
 public:
  static constexpr std::size_t longest_key = 1024;
  static constexpr std::size_t largest_value = std::size_t{1} << 20;

  virtual ~KeyValueStore() = default;
  // The last value set counts. Throws: Error where key or value is too long; PeerFailedError and its kin after a failure.
  virtual void set(std::string_view key, std::string value) = 0;
  // Waits until a rank has set `key`. Throws: TimeoutError that names it; at once, where a rank fails or dies meanwhile.
  virtual std::string get(std::string_view key, std::chrono::milliseconds deadline) = 0;
};

enum class NoticeKind : std::uint8_t {
  failed,  // the rank announced `failure`
  departed,  // it ended normally; the message of `failure` is what it had to say
  died,  // its connection closed without a goodbye; `failure` says so
};

struct Notice {
  NoticeKind kind;
  int rank;  // of the world: the rank that it is about
  Failure failure;
};

// Owns a function that is called with each notice, on the store's thread: one at a time, in the order of the events.
class NoticeHandler {
 public:
  template <class F>
    requires(std::invocable<F&, const Notice&> && !std::same_as<std::remove_cvref_t<F>, NoticeHandler>)
  NoticeHandler(F f) : call_(std::make_unique<Holder<F>>(std::move(f))) {}  // NOLINT: handlers are written as lambdas
  void operator()(const Notice& notice) const { call_->call(notice); }

 private:
  struct Call {
    virtual ~Call() = default;
    virtual void call(const Notice& notice) = 0;
  };
  template <class F>
  struct Holder final : Call {
    explicit Holder(F g) : f(std::move(g)) {}
    void call(const Notice& notice) override { f(notice); }
    F f;
  };

  std::unique_ptr<Call> call_;
};

}  // namespace shardwise::detail
