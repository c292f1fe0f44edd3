// WaitNotes: what each rank of a world waits for, once that takes long: so ranks that all wait for each other find out that they do
// different things. Layer: backends/process.
#pragma once

#include <chrono>
#include <cstring>
#include <span>
#include <string>

#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

// One note a rank, in the store: the header of what it is in. As long as messages come nobody writes or reads one. A rank that broadcasts
// from another root than the others, so that nobody sends, is found by this alone.
class WaitNotes {
 public:
  WaitNotes(KeyValueStore& store, int rank) : store_(store), rank_(rank) {
    try {
      store_.set(key_of(rank_), std::string());
    } catch (const CommError&) {  // the first call says what has failed
    }
  }

  // Called now and then by a rank that waits for messages of `peers` in what `mine` says. Throws: TransportError where one of them is
  // in another operation of that number.
  template <class Peers>
  void compare(const MessageHeader& mine, const Peers& peers) {
    const Clock::time_point now = Clock::now();
    if (std::memcmp(&mine, &waits_in_, sizeof mine) != 0 || now - last_call_ > gap) {
      waits_in_ = mine;
      next_ = now + patience;
    }
    last_call_ = now;
    if (now < next_) return;
    next_ = now + pause;
    int asked = 0;
    MessageHeader theirs;
    try {
      tell(mine);
      for (const int peer : peers) {
        if (++asked > most_peers || !read(peer, theirs) || !disagree(mine, theirs)) continue;
        throw TransportError(peer, theirs, theirs.bytes);
      }
    } catch (const TransportError&) {
      throw;
    } catch (const CommError&) {  // whoever fails or ends tells of it in other ways
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds patience{150}, pause{250}, gap{400}, answer{200};
  static constexpr int most_peers = 4;  // where more are awaited, this rank has sent to them too, which they can see

  static std::string key_of(int rank) { return text("waits of rank ", rank); }

  void tell(const MessageHeader& mine) {
    if (std::memcmp(&mine, &told_, sizeof mine) == 0) return;
    store_.set(key_of(rank_), std::string(reinterpret_cast<const char*>(&mine), sizeof mine));
    told_ = mine;
  }
  bool read(int peer, MessageHeader& theirs) {
    const std::string note = store_.get(key_of(peer), answer);
    if (note.size() != sizeof theirs) return false;
    std::memcpy(&theirs, note.data(), sizeof theirs);
    return true;
  }

  // An older note says nothing, and no more does one about a message: it may be in this collective next.
  static bool disagree(const MessageHeader& mine, const MessageHeader& theirs) {
    return is_known(theirs) && theirs.group == mine.group && theirs.sequence == mine.sequence && !mine.is_message() &&
           !theirs.is_message() && !agree(mine, theirs);
  }

  KeyValueStore& store_;
  const int rank_;
  MessageHeader waits_in_, told_;
  Clock::time_point last_call_{}, next_{};
};

}  // namespace shardwise::detail
