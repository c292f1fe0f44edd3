// SharedPosted: one rank's end of an exchange that it has posted, among processes of one host. Layer: backends/process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include <shardwise/backends/process/shared_group.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise::detail {

// As ThreadPosted: dropping it is leaving, and the others get what they need from this rank all the same. `in` is kept alive
// until then; memory outside the arena is copied.
class SharedPosted {
 public:
  SharedPosted(std::shared_ptr<SharedGroup> group, const Caller& me, const CallInfo& call, Buffer in,
               std::size_t in_bytes)
      : group_(std::move(group)), me_(me), call_(call), number_(group_->post(me_, call_, std::move(in), in_bytes)) {}
  SharedPosted(const SharedPosted&) = delete;
  SharedPosted& operator=(const SharedPosted&) = delete;
  ~SharedPosted() { leave(); }

  // `finish` would not wait.
  bool ready() const { return left_ || group_->all_posted(number_) || group_->failed() || group_->host().failed(); }

  // Waits until all ranks have posted, then runs `body(Peers)`, which reads their inputs and must not throw. To be called
  // once, or again after it has thrown. Throws: MismatchError, PeerFailedError, TimeoutError.
  void finish(PeersFunction body) {
    group_->finish(me_, call_, number_, [&](const Peers& peers) {
      trace(call_.collective, call_.dtype, me_.axis.view(), call_.bytes);
      body(peers);
    });
    leave();
  }

  // Every rank has read its part, or left: the input may be written.
  bool input_is_free() const { return group_->all_taken(number_); }
  void wait_for_readers() { group_->await_takes(me_, call_, number_); }

 private:
  void leave() {
    if (!std::exchange(left_, true)) group_->take(me_, number_);
  }

  std::shared_ptr<SharedGroup> group_;
  Caller me_;
  CallInfo call_;
  std::uint64_t number_;
  bool left_ = false;
};

}  // namespace shardwise::detail
