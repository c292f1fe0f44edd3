// ThreadPosted: one rank's end of an exchange that it has posted. Layer: backends/thread.
#pragma once

#include <cstdint>
#include <utility>

#include <shardwise/backends/thread/group.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/lean.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise::detail {

// Dropping it is leaving: the others get what they need from this rank all the same. Stays where it was made.
template <class = void>
class BasicThreadPosted {
 public:
  BasicThreadPosted(Ref<ThreadGroup> group, const Caller& me, const CallInfo& call, Buffer in)
      : group_(std::move(group)), me_(me), call_(call), exchange_(&group_->post(me_, call_, std::move(in))),
        number_(exchange_->number) {}
  BasicThreadPosted(const BasicThreadPosted&) = delete;
  BasicThreadPosted& operator=(const BasicThreadPosted&) = delete;
  ~BasicThreadPosted() { leave(); }

  // `finish` would not wait.
  bool ready() const { return exchange_ == nullptr || group_->all_posted(*exchange_) || group_->failed(); }

  // Waits until all ranks have posted, then runs `body(Peers)`, which reads their inputs and must not throw. To be called
  // once, or again after it has thrown. Throws: MismatchError, PeerFailedError, TimeoutError.
  template <class Body>
  void finish(Body&& body) {
    group_->await_posts(me_, *exchange_, call_);
    trace(call_.collective, call_.dtype, me_.axis.view(), call_.bytes);
    body(Peers{group_->size, exchange_->in.data(), nullptr});
    leave();
  }

  // Every rank has read its part, or left: the input may be written.
  bool input_is_free() const { return group_->all_taken(number_); }
  void wait_for_readers() { group_->await_takes(me_, number_, call_); }

 private:
  void leave() {
    if (exchange_ != nullptr) group_->take(me_.rank, *taken(exchange_));
  }

  Ref<ThreadGroup> group_;
  Caller me_;
  CallInfo call_;
  PostedExchange* exchange_;
  std::uint64_t number_;
};
using ThreadPosted = BasicThreadPosted<>;

}  // namespace shardwise::detail
