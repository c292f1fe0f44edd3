// Segment: the memory through which the ranks of one host meet. Its ranks all write it, each its own slots; data of tensors
// is never in it, but for small copies. Laid out here, used by SharedHost and SharedGroup. Layer: backends/process.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <type_traits>

#include <shardwise/comm/call.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/gate_word.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

inline constexpr int most_host_ranks = 1024;
inline constexpr std::size_t segment_bytes = std::size_t{64}
                                             << 30;  // of address space: pages come when they are written

// The first failure of a host. Who finds it writes it, once.
struct SharedFailure {
  enum State : std::uint32_t { none, being_written, written };

  bool any() const { return state.load(std::memory_order_acquire) != none; }

  // False where another came first.
  bool set(const Failure& failure) {
    std::uint32_t expected = none;
    if (!state.compare_exchange_strong(expected, being_written)) return false;
    kind = failure.kind;
    found_by = failure.found_by;
    const std::size_t n = std::min(failure.message.size(), sizeof words - 1);
    std::memcpy(words, failure.message.data(), n);
    words[n] = '\0';
    state.store(written, std::memory_order_release);
    return true;
  }

  // What was written. Who writes may have been stopped at it: after half a second that there was one must do.
  Failure get() const {
    for (int i = 0; i < 500 && state.load(std::memory_order_acquire) != written; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (state.load(std::memory_order_acquire) == written) return {kind, words, found_by};
    return {FailureKind::peer, "another rank of this host failed", -1};
  }

  std::atomic<std::uint32_t> state;
  FailureKind kind;
  int found_by;
  char words[2048];
};

// Where the others find what a rank offers.
struct SharedOffer {
  enum Place : std::uint32_t { nowhere, arena, segment };
  Place place = nowhere;
  std::uint64_t offset = 0;
};

// What one rank of a group says. Nobody else writes it but for the state of its message.
struct alignas(64) SharedSlot {
  CallInfo call[2];  // by parity of the generation
  SharedOffer in[2];
  std::atomic<std::uint32_t> arrived;  // the generation that this rank completes by coming
  std::atomic<std::uint32_t> left;  // likewise, that it has left
  std::uint64_t posts;  // so many exchanges in two halves: whichever handle of its process they went through

  // The message that this rank sends: one at a time, a rendezvous. Its state and whom it is for stand in one word.
  alignas(64) std::atomic<std::uint64_t> message;
  CallInfo message_call;
  SharedOffer message_data;
  SharedWaitSignal message_signal;  // this rank sleeps on it
};
static_assert(std::is_trivially_copyable_v<CallInfo>, "calls are compared across processes");

// One rank's end of an exchange that ranks enter and leave when they please. The marks carry the group's number: what an
// earlier group left here is less. Of the exchange's number they carry 32 bits, which may come round: of two that lie in one
// place the later is a little ahead.
struct SharedPost {
  CallInfo call;
  SharedOffer in;
  std::atomic<std::uint64_t> posted;
  std::atomic<std::uint64_t> taken;

  static std::uint64_t mark(std::uint64_t group, std::uint64_t number) {
    return (group << 32) | static_cast<std::uint32_t>(number + 1);
  }
  static bool reached(const std::atomic<std::uint64_t>& at, std::uint64_t mark) {
    const std::uint64_t is = at.load();
    if (is >> 32 != mark >> 32) return is > mark;
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(is) - static_cast<std::uint32_t>(mark)) >= 0;
  }
};

// A group: this, its slots, then the copies of small inputs (two of each rank by parity, and one for its message), then the
// posts of each rank.
struct alignas(64) SharedPart {
  static constexpr std::size_t copy_bytes = 512 * 1024;  // stays in a second-level cache
  static constexpr std::uint64_t most_posts = 256;  // of a rank under way

  std::atomic<std::uint64_t> next_free;  // of a part that nobody uses
  std::uint64_t size_class;
  std::uint64_t id;
  int rank_count;
  std::atomic<int> users;  // ranks that have not dropped it
  alignas(64) std::atomic<std::uint64_t> word;
  SharedWaitSignal signal;
  alignas(64) std::atomic<int> exits;
  std::atomic<std::uint32_t> exit_generation;

  static std::size_t bytes(int ranks) {
    return posts_at(ranks) + static_cast<std::size_t>(ranks) * most_posts * sizeof(SharedPost);
  }
  static std::size_t posts_at(int ranks) { return copies_at(ranks) + static_cast<std::size_t>(ranks) * 3 * copy_bytes; }
  static std::size_t copies_at(int ranks) {
    return (sizeof(SharedPart) + static_cast<std::size_t>(ranks) * sizeof(SharedSlot) + 4095) / 4096 * 4096;
  }
  SharedSlot* slots() { return reinterpret_cast<SharedSlot*>(this + 1); }
  // The post of `rank` with this number.
  SharedPost& post(int ranks, int rank, std::uint64_t number) {
    auto* const posts = reinterpret_cast<SharedPost*>(reinterpret_cast<std::byte*>(this) + posts_at(ranks));
    return posts[static_cast<std::uint64_t>(rank) * most_posts + number % most_posts];
  }
  // Whether every rank has read it, or dropped it.
  bool all_taken(int ranks, std::uint64_t group, std::uint64_t number) {
    for (int r = 0; r < ranks; ++r)
      if (!SharedPost::reached(post(ranks, r, number).taken, SharedPost::mark(group, number))) return false;
    return true;
  }
};

// The beginning of a segment. All zeros is an empty one, but for `layout` and `next`.
struct SegmentHeader {
  // Programs that were built from different headers do not meet.
  static constexpr std::uint64_t this_layout =
      ((sizeof(SharedSlot) * 31 + sizeof(SharedPart)) * 31 + sizeof(CallInfo)) * 31 + 0x5357'0003;

  std::uint64_t layout;
  std::uint64_t bytes;
  std::atomic<std::uint64_t> next;  // parts begin behind each other from here
  std::atomic<std::uint64_t> free[64];  // by size class: a count against reuse (upper half), the page of the first one
  std::atomic<std::uint64_t> groups;  // made so far
  std::uint64_t lanes;  // where they are; 0: there are none
  SharedFailure failure;
  std::atomic<std::uint32_t> departures;
  std::atomic<bool> departed[most_host_ranks];

  static SegmentHeader* make(std::byte* at, std::size_t size) {
    auto* header = new (at) SegmentHeader();
    header->bytes = size;
    header->next.store(first_part());
    header->layout = this_layout;
    return header;
  }

  static constexpr std::uint64_t first_part() { return (sizeof(SegmentHeader) + 4095) / 4096 * 4096; }
  SharedPart& part(std::uint64_t offset) {
    return *reinterpret_cast<SharedPart*>(reinterpret_cast<std::byte*>(this) + offset);
  }

  // Where a new group's part is; 0 where none is left. Without locks: a process that is killed here stops nobody.
  std::uint64_t make_part(int ranks) {
    const auto c = static_cast<std::uint64_t>(std::bit_width(SharedPart::bytes(ranks) - 1));
    std::uint64_t at = pop(free[c]);
    if (at == 0) {
      at = take(std::uint64_t{1} << c);
      if (at == 0) return 0;
    } else if (part(at).rank_count != ranks) {  // its posts begin elsewhere: where these begin lies anything
      std::memset(reinterpret_cast<std::byte*>(&part(at)) + SharedPart::posts_at(ranks), 0,
                  SharedPart::bytes(ranks) - SharedPart::posts_at(ranks));
    }
    auto* made = new (&part(at)) SharedPart();
    made->size_class = c;
    made->rank_count = ranks;
    made->id = groups.fetch_add(1) + 1;
    made->users.store(ranks);
    for (int r = 0; r < ranks; ++r) new (made->slots() + r) SharedSlot();
    return at;
  }

  // Zeros, for as long as the segment lives; 0 where there is no room.
  std::uint64_t take(std::size_t size) {
    size = (size + page - 1) / page * page;
    std::uint64_t at = next.load();
    do
      if (at + size > bytes) return 0;  // what is smaller may still find some
    while (!next.compare_exchange_weak(at, at + size));
    return at;
  }

  // One of its ranks uses it no longer.
  void drop_part(std::uint64_t offset) {
    SharedPart& dropped = part(offset);
    if (dropped.users.fetch_sub(1) == 1) push(free[dropped.size_class], offset);
  }

 private:
  static constexpr std::uint64_t page = 4096;

  std::uint64_t pop(std::atomic<std::uint64_t>& list) {
    std::uint64_t head = list.load();
    for (;;) {
      const std::uint64_t at = (head & 0xffffffffu) * page;
      if (at == 0) return 0;
      // Of a part that another rank takes meanwhile this is anything; then the count has moved.
      const std::uint64_t next_page = part(at).next_free.load() & 0xffffffffu;
      if (list.compare_exchange_weak(head, counted(head) | next_page)) return at;
    }
  }
  void push(std::atomic<std::uint64_t>& list, std::uint64_t offset) {
    std::uint64_t head = list.load();
    do part(offset).next_free.store(head & 0xffffffffu);
    while (!list.compare_exchange_weak(head, counted(head) | offset / page));
  }
  static std::uint64_t counted(std::uint64_t head) { return ((head >> 32) + 1) << 32; }
};

}  // namespace shardwise::detail
