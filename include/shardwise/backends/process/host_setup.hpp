// meet_on_host: the ranks of one host find each other over a local socket and hand around the descriptors of their memory.
// All of them come to the same result. Layer: backends/process.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include <shardwise/backends/process/arena.hpp>
#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/lanes.hpp>
#include <shardwise/backends/process/local_socket.hpp>
#include <shardwise/backends/process/segment.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

// How the meeting ends, for all.
struct HostVerdict {
  enum Kind : std::int32_t { together, apart, late, lost };  // apart: without shared memory

  Kind kind = together;
  char words[508] = {};

  void set(Kind k, const std::string& w) {
    kind = k;
    const std::size_t n = std::min(w.size(), sizeof words - 1);
    std::memcpy(words, w.data(), n);
    words[n] = '\0';
  }
};

// What a rank brings, with its arena's descriptor and its lifeline's. And what it says once it has mapped everything.
struct HostHello {
  char token[32] = {};
  std::uint64_t layout = 0;
  std::uint64_t reserve = 0;
  std::int32_t world_rank = -1;
  HostVerdict verdict;  // apart: what it lacks
};

// What the first rank gives the others: in the first message the segment, then the arena and lifeline of each.
struct HostPacket {
  static constexpr int most = 100;
  HostVerdict verdict;
  std::int32_t first = 0;
  std::int32_t count = 0;
  std::uint64_t segment_bytes = 0;
  std::uint64_t reserve[most] = {};
  bool has_lifeline[most] = {};
};

// A descriptor that becomes readable when the process ends; nothing before Linux 5.3.
inline Descriptor lifeline_of_process() {
#ifdef SYS_pidfd_open
  return Descriptor(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
#else
  return Descriptor(static_cast<int>(syscall(434, getpid(), 0)));
#endif
}

// One rank's way to the others. Everything it opens is closed with it, but for what becomes the SharedHost.
class HostMeeting {
 public:
  HostMeeting(KeyValueStore& store, const std::string& key, const std::vector<int>& world_ranks, int self,
              int world_size, std::chrono::milliseconds deadline)
      : store_(store), key_(key), world_ranks_(world_ranks), self_(self), world_size_(world_size), deadline_(deadline),
        limit_(deadline), members_(world_ranks.size()) {
    Member& me = members_[index(self)];
    Arena* const arena = Arena::of_process(obstacle_);
    arena_ = arena;
    if (arena == nullptr) return;
    me.arena = arena->share();
    me.reserve = arena->reserve();
    me.lifeline = lifeline_of_process();
    me.came = true;
    if (!me.arena) obstacle_ = text("a descriptor for the arena: ", system_text());
  }

  // What the others need to find this rank, the first of the host.
  std::string open_door() {
    token_ = random_letters();
    const std::string name = "shardwise-" + random_letters();
    door_ = listen_locally(name);
    if (!door_ && obstacle_.empty()) obstacle_ = text("a local socket: ", system_text());
    return door_ ? name + " " + token_ : "! " + obstacle_of(self_);
  }

  // The first rank: everybody comes, gets everything, and says whether it could use it.
  std::shared_ptr<SharedHost> lead(std::string& obstacle) {
    HostVerdict verdict;
    if (size() > 1 && door_) gather(verdict);
    if (verdict.kind == HostVerdict::together) make_segment();
    if (verdict.kind == HostVerdict::together && !obstacle_.empty())
      verdict.set(HostVerdict::apart, obstacle_of(self_));
    for (int r = 0; r < size() && verdict.kind == HostVerdict::together; ++r)
      if (member(r).said.kind != HostVerdict::together) verdict.set(HostVerdict::apart, member(r).said.words);
    hand_out(verdict);
    std::shared_ptr<SharedHost> host = verdict.kind == HostVerdict::together ? make_host() : nullptr;
    if (verdict.kind == HostVerdict::together) {
      collect(verdict);
      for (int r = 0; r < size() && verdict.kind == HostVerdict::together; ++r)
        if (member(r).said.kind != HostVerdict::together) verdict.set(HostVerdict::apart, member(r).said.words);
      if (verdict.kind == HostVerdict::together && host == nullptr) verdict.set(HostVerdict::apart, obstacle_of(self_));
      for (int r = 0; r < size(); ++r)
        if (member(r).socket) send_packet(member(r).socket, &verdict, sizeof verdict, {});
    }
    return conclude(verdict, std::move(host), obstacle);
  }

  // The others. `door`: what open_door gave.
  std::shared_ptr<SharedHost> follow(const std::string& door, std::string& obstacle) {
    const std::size_t space = door.find(' ');
    if (door[0] == '!') return obstacle = door.substr(2), nullptr;
    SHARDWISE_REQUIRE(space != std::string::npos && door.size() - space - 1 == sizeof HostHello::token,
                      "shardwise: the first rank of the host gave no address of a local socket", CommError);
    Descriptor socket = connect_locally(std::string_view(door).substr(0, space));
    if (!socket) lost(text("no connection over a local socket: ", system_text()));
    SHARDWISE_REQUIRE(same_user(socket), "shardwise: the local socket of the host's first rank belongs to another user",
                      CommError);
    HostHello hello;
    std::memcpy(hello.token, door.data() + space + 1, sizeof hello.token);
    hello.layout = SegmentHeader::this_layout;
    hello.reserve = member(self_).reserve;
    hello.world_rank = world_rank(self_);
    if (!obstacle_.empty()) hello.verdict.set(HostVerdict::apart, obstacle_of(self_));
    say(socket, hello);

    HostVerdict verdict = receive_all(socket);
    if (verdict.kind != HostVerdict::together) return conclude(verdict, nullptr, obstacle);
    std::shared_ptr<SharedHost> host = make_host();
    if (host == nullptr) hello.verdict.set(HostVerdict::apart, obstacle_of(self_));
    if (!send_packet(socket, &hello.verdict, sizeof hello.verdict, {})) lost("it closed the local socket");
    receive(socket, &verdict, sizeof verdict);
    return conclude(verdict, std::move(host), obstacle);
  }

 private:
  struct Member {
    Descriptor socket, arena, lifeline;
    std::uint64_t reserve = 0;
    bool came = false;
    HostVerdict said;
  };

  static constexpr std::size_t most_unknown = 2 * most_host_ranks;

  static std::size_t index(int r) { return static_cast<std::size_t>(r); }
  int size() const { return static_cast<int>(members_.size()); }
  int world_rank(int r) const { return world_ranks_[index(r)]; }
  Member& member(int r) { return members_[index(r)]; }
  std::string obstacle_of(int r) const { return text("rank ", world_rank(r), ": ", obstacle_); }

  // Throws what the store knows of a rank that failed or died, which may be one that never came here.
  void ask_for_the_dead() const { store_.get(key_, deadline_); }

  // ---- the first rank ---------------------------------------------------------------------------------------------

  // Whoever connects and does not say the token is let go; so is another user, at once.
  void gather(HostVerdict& verdict) {
    std::vector<Descriptor> unknown;
    while (missing().size() > 0) {
      const auto left = limit_.left();
      if (left <= WaitClock::duration::zero()) {
        verdict.set(HostVerdict::late, text("shardwise: deadline of ", deadline_.count(),
                                            " ms passed while the ranks of one host met; missing: ", missing()));
        return;
      }
      std::vector<pollfd> sockets{{door_.get(), POLLIN, 0}};
      for (const Descriptor& d : unknown) sockets.push_back({d.get(), POLLIN, 0});
      for (const Member& m : members_) sockets.push_back({m.socket.get(), POLLIN, 0});
      poll_until(sockets, std::min<WaitClock::duration>(left, std::chrono::milliseconds(50)));
      ask_for_the_dead();
      for (int r = 0; r < size(); ++r)
        if (sockets[1 + unknown.size() + index(r)].revents != 0) return ended(verdict, r);
      for (std::size_t i = unknown.size(); i-- > 0;)
        if (sockets[1 + i].revents != 0) {
          take_hello(std::move(unknown[i]));
          unknown.erase(unknown.begin() + static_cast<std::ptrdiff_t>(i));
        }
      if (sockets[0].revents == 0) continue;
      Descriptor guest(accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (guest && same_user(guest)) unknown.push_back(std::move(guest));
      if (unknown.size() > most_unknown) unknown.erase(unknown.begin());
    }
  }

  void take_hello(Descriptor socket) {
    HostHello hello;
    std::vector<Descriptor> fds;
    if (!receive_packet(socket, &hello, sizeof hello, fds)) return;
    unsigned char differ = 0;  // in constant time
    for (std::size_t i = 0; i < sizeof hello.token; ++i)
      differ = static_cast<unsigned char>(differ | (hello.token[i] ^ token_[i]));
    const auto at = std::find(world_ranks_.begin(), world_ranks_.end(), hello.world_rank) - world_ranks_.begin();
    if (differ != 0 || at == static_cast<std::ptrdiff_t>(size()) || members_[static_cast<std::size_t>(at)].came) return;
    Member& m = members_[static_cast<std::size_t>(at)];
    m.said = hello.verdict;
    if (hello.layout != SegmentHeader::this_layout)
      m.said.set(HostVerdict::apart, text("rank ", hello.world_rank, " runs a program built from other headers"));
    m.came = true;
    m.reserve = hello.reserve;
    m.socket = std::move(socket);
    if (fds.size() > 0) m.arena = std::move(fds[0]);
    if (fds.size() > 1) m.lifeline = std::move(fds[1]);
  }

  void make_segment() {
    segment_file_ = make_shared_memory("shardwise-segment");
    segment_bytes_ = std::min(segment_bytes, arena_reserve());
    if (!segment_file_ || ftruncate(segment_file_.get(), static_cast<off_t>(segment_bytes_)) != 0) {
      if (obstacle_.empty()) obstacle_ = text("memory for the ranks of a host to meet: ", system_text());
      return;
    }
    const Mapping mapping(segment_file_.get(), segment_bytes_, PROT_READ | PROT_WRITE);
    if (mapping) {
      SegmentHeader& header = *SegmentHeader::make(mapping.data(), segment_bytes_);
      header.make_part(size());  // the group of all
      if (size() < world_size_) header.lanes = header.take(SharedLanes::bytes(size()));
      if (size() < world_size_ && header.lanes == 0 && obstacle_.empty())
        obstacle_ = text("no room for the lanes of ", size(), " ranks in ", segment_bytes_ >> 20, " MiB");
    } else if (obstacle_.empty())
      obstacle_ = text("address space for the ranks of a host to meet: ", system_text());
  }

  void hand_out(const HostVerdict& verdict) {
    for (int first = 0; first < size(); first += HostPacket::most) {
      HostPacket packet;
      packet.verdict = verdict;
      packet.first = first;
      packet.count = std::min(HostPacket::most, size() - first);
      packet.segment_bytes = segment_bytes_;
      std::vector<int> fds;
      if (verdict.kind == HostVerdict::together) {
        if (first == 0) fds.push_back(segment_file_.get());
        for (int i = 0; i < packet.count; ++i) {
          const Member& m = member(first + i);
          packet.reserve[i] = m.reserve;
          packet.has_lifeline[i] = static_cast<bool>(m.lifeline);
          fds.push_back(m.arena.get());
          if (m.lifeline) fds.push_back(m.lifeline.get());
        }
      }
      for (const Member& m : members_)
        if (m.socket) give(m.socket, packet, fds);
      if (verdict.kind != HostVerdict::together) return;
    }
  }

  // What each says once it has mapped everything.
  void collect(HostVerdict& verdict) {
    for (int r = 0; r < size(); ++r) {
      if (!member(r).socket) continue;
      std::vector<Descriptor> none;
      if (!await(member(r).socket))
        return verdict.set(HostVerdict::late,
                           text("shardwise: deadline of ", deadline_.count(),
                                " ms passed while the ranks of one host met; missing: rank ", world_rank(r)));
      if (!receive_packet(member(r).socket, &member(r).said, sizeof(HostVerdict), none)) return ended(verdict, r);
    }
  }

  void ended(HostVerdict& verdict, int r) {
    verdict.set(HostVerdict::lost, text("shardwise: rank ", world_rank(r), " ended while the ranks of one host met"));
  }

  std::string missing() const {
    std::string all;
    for (int r = 0; r < size(); ++r)
      if (!members_[index(r)].came && r != self_) all = text(all, all.empty() ? "rank " : ", rank ", world_rank(r));
    return all;
  }

  // ---- the others -------------------------------------------------------------------------------------------------

  void say(const Descriptor& socket, const HostHello& hello) {
    std::vector<int> fds;
    if (member(self_).arena) fds.push_back(member(self_).arena.get());
    if (!fds.empty() && member(self_).lifeline) fds.push_back(member(self_).lifeline.get());
    if (!give(socket, hello, fds)) lost("it closed the local socket");
  }

  HostVerdict receive_all(const Descriptor& socket) {
    HostPacket packet;
    int next = 0;
    while (next < size()) {
      std::vector<Descriptor> fds;
      receive(socket, &packet, sizeof packet, fds);
      if (packet.verdict.kind != HostVerdict::together) return packet.verdict;
      std::size_t at = 0;
      const auto take = [&] { return at < fds.size() ? std::move(fds[at++]) : Descriptor(); };
      if (packet.first == 0) segment_file_ = take(), segment_bytes_ = packet.segment_bytes;
      for (int i = 0; i < packet.count && packet.first + i < size(); ++i) {
        Member& m = member(packet.first + i);
        Descriptor arena = take(), lifeline = packet.has_lifeline[i] ? take() : Descriptor();
        m.reserve = packet.reserve[i];
        if (packet.first + i == self_) continue;
        m.arena = std::move(arena);
        m.lifeline = std::move(lifeline);
      }
      next = packet.first + packet.count;
    }
    return packet.verdict;
  }

  void receive(const Descriptor& socket, void* data, std::size_t bytes, std::vector<Descriptor>& fds) {
    if (!await(socket, std::chrono::seconds(1)))
      fail<TimeoutError>(text("shardwise: deadline of ", deadline_.count(),
                              " ms passed while the ranks of one host met; missing: rank ", world_rank(0)));
    if (!receive_packet(socket, data, bytes, fds)) lost("it closed the local socket");
  }
  void receive(const Descriptor& socket, void* data, std::size_t bytes) {
    std::vector<Descriptor> none;
    receive(socket, data, bytes, none);
  }

  [[noreturn]] void lost(const std::string& how) const {
    ask_for_the_dead();  // the first rank has gone because of it
    fail<PeerFailedError>(text("shardwise: rank ", world_rank(0), " ended while the ranks of one host met: ", how));
  }

  // ---- all --------------------------------------------------------------------------------------------------------

  // Of one user's descriptors the system has only so many on their way (RLIMIT_NOFILE): then others take theirs first.
  template <class Packet>
  bool give(const Descriptor& socket, const Packet& packet, const std::vector<int>& fds) {
    while (!send_packet(socket, &packet, sizeof packet, fds)) {
      if (errno != ETOOMANYREFS || limit_.left() <= WaitClock::duration::zero()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  // Until it can be read. The first rank says who is missing: the others give it a little longer.
  bool await(const Descriptor& socket, std::chrono::milliseconds more = {}) {
    for (;;) {
      const auto left = limit_.left() + more;
      if (left <= WaitClock::duration::zero()) return false;
      std::vector<pollfd> one{{socket.get(), POLLIN, 0}};
      poll_until(one, left);
      if (one[0].revents != 0) return true;
    }
  }

  std::shared_ptr<SharedHost> make_host() {
    Mapping segment(segment_file_.get(), segment_bytes_, PROT_READ | PROT_WRITE);
    if (!segment) return obstacle_ = text("address space for the ranks of a host to meet: ", system_text()), nullptr;
    std::vector<SharedHost::Rank> ranks;
    for (int r = 0; r < size(); ++r) {
      Member& m = member(r);
      PeerArena arena;
      if (r != self_) arena = PeerArena(m.arena, m.reserve);
      if (r != self_ && !arena)
        return obstacle_ = text("the arena of rank ", world_rank(r), " cannot be mapped: ", system_text()), nullptr;
      ranks.push_back({world_rank(r), std::move(arena), r == self_ ? Descriptor() : std::move(m.lifeline)});
    }
    return std::make_shared<SharedHost>(*arena_, std::move(segment), std::move(ranks), self_, world_size_);
  }

  std::shared_ptr<SharedHost> conclude(const HostVerdict& verdict, std::shared_ptr<SharedHost> host,
                                       std::string& obstacle) {
    if (verdict.kind == HostVerdict::late) fail<TimeoutError>(std::string(verdict.words));
    if (verdict.kind == HostVerdict::lost) fail<PeerFailedError>(std::string(verdict.words));
    if (verdict.kind == HostVerdict::together) return host;
    obstacle = verdict.words;
    return nullptr;
  }

  KeyValueStore& store_;
  const std::string key_;
  const std::vector<int> world_ranks_;
  const int self_;
  const int world_size_;
  const std::chrono::milliseconds deadline_;
  WaitLimit limit_;
  std::string obstacle_, token_;
  Arena* arena_ = nullptr;
  std::vector<Member> members_;
  Descriptor door_, segment_file_;
  std::size_t segment_bytes_ = 0;
};

// The ranks of one host, by ascending world rank; `self` is this one's place among them. They find the first of them
// through `store`, under `key`, which is theirs alone.
// Gives: the same on all of them; nothing, and in `obstacle` why, where one of them cannot share its memory.
// Throws: TimeoutError with who did not come, PeerFailedError with who ended meanwhile.
inline std::shared_ptr<SharedHost> meet_on_host(KeyValueStore& store, const std::string& key,
                                                const std::vector<int>& world_ranks, int self, int world_size,
                                                std::chrono::milliseconds deadline, std::string& obstacle) {
  if (world_ranks.size() > static_cast<std::size_t>(most_host_ranks)) {
    obstacle = text(world_ranks.size(), " ranks on one host are more than ", most_host_ranks);
    return nullptr;
  }
  HostMeeting meeting(store, key, world_ranks, self, world_size, deadline);
  if (self != 0) return meeting.follow(store.get(key, deadline), obstacle);
  if (world_ranks.size() > 1) store.set(key, meeting.open_door());
  return meeting.lead(obstacle);
}

}  // namespace shardwise::detail
