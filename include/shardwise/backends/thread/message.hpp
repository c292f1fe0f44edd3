// send and recv between threads: a rendezvous, as large messages have it everywhere. The receiver copies from the
// sender's buffer. Layer: backends/thread.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>

#include <shardwise/backends/thread/group.hpp>

namespace shardwise::detail {

// Returns when `dest` has taken the bytes.
template <class = void>
void send_message(ThreadGroup& group, const Caller& me, int dest, const CallInfo& call, const void* data) {
  if (group.failed()) group.throw_failure(me, call);
  ThreadWorld& world = group.world();
  ThreadMessage message{call, data, me.rank};
  group.mailbox(dest).post(message);
  group.message_signal(dest).notify();

  WaitSignal& signal = group.message_signal(me.rank);
  const auto finished = [&] { return message.state.load() != ThreadMessage::posted; };
  WaitLimit limit(me.deadline);
  int departures = 0;
  while (!finished()) {
    const bool came = signal.wait([&] { return finished() || group.failed() || world.departures() != departures; },
                                  world.patience(), limit);
    departures = world.departures();
    const bool gone = world.departed(group.world_rank(dest));
    if (finished() || (came && !gone && !group.failed())) continue;
    if (!group.mailbox(dest).withdraw(message)) {
      signal.wait(finished, world.patience());  // the receiver is at it: it always finishes
      break;
    }
    if (!group.failed())
      world.fail(gone ? group.left_early(me, dest) : group.timed_out(me, call, group.rank_text(dest)));
    group.throw_failure(me, call);
  }
  if (message.state.load() == ThreadMessage::refused) group.throw_failure(me, call);
}

// Returns with the bytes of the oldest message that `source` sent to this rank.
template <class = void>
void receive_message(ThreadGroup& group, const Caller& me, int source, const CallInfo& call, void* data,
                     std::size_t bytes) {
  ThreadWorld& world = group.world();
  ThreadMailbox& mailbox = group.mailbox(me.rank);
  WaitLimit limit(me.deadline);
  bool came = true;
  for (;;) {
    if (group.failed()) group.throw_failure(me, call);
    const int departures = world.departures();
    const bool gone = world.departed(group.world_rank(source));
    const std::uint32_t posts = mailbox.posts();
    if (ThreadMessage* message = mailbox.take_from(source)) {
      const bool same = message->call.dtype == call.dtype && message->call.shape == call.shape;
      Failure failure;
      if (same) {
        if (bytes > 0) std::memcpy(data, message->data, bytes);
      } else {
        failure = group.mismatch(me, source, message->call, me.rank, call);
        world.fail(failure);
      }
      // The sender may return at once: its message is not touched after this.
      message->state.store(same ? ThreadMessage::delivered : ThreadMessage::refused);
      group.message_signal(source).notify();
      if (!same) throw_failure(failure, {});
      return;
    }
    if (gone || !came) {
      world.fail(gone ? group.left_early(me, source) : group.timed_out(me, call, group.rank_text(source)));
      group.throw_failure(me, call);
    }
    came = group.message_signal(me.rank).wait(
        [&] { return mailbox.posts() != posts || group.failed() || world.departures() != departures; },
        world.patience(), limit);
  }
}

}  // namespace shardwise::detail
