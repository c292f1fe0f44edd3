// GlooConnection: one Gloo pair in synchronous mode, and messages over its bound buffers: a header with a small payload at once, a
// large one in chunks straight from and into the memory of the caller. Layer: backends/gloo.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <gloo/transport/buffer.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/address.h>

#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

inline bool same_address(const sockaddr_storage& a, const sockaddr_storage& b) {
  if (a.ss_family != b.ss_family) return false;
  if (a.ss_family == AF_INET) {
    const auto& x = reinterpret_cast<const sockaddr_in&>(a);
    const auto& y = reinterpret_cast<const sockaddr_in&>(b);
    return x.sin_port == y.sin_port && x.sin_addr.s_addr == y.sin_addr.s_addr;
  }
  const auto& x = reinterpret_cast<const sockaddr_in6&>(a);
  const auto& y = reinterpret_cast<const sockaddr_in6&>(b);
  return x.sin6_port == y.sin6_port && std::memcmp(&x.sin6_addr, &y.sin6_addr, sizeof x.sin6_addr) == 0;
}

// The descriptor of this process' socket at `ours` that is connected to `theirs`, or else to any other address; -1: none.
inline int connected_socket(const sockaddr_storage& ours, const sockaddr_storage& theirs) {
  DIR* const folder = opendir("/proc/self/fd");
  SHARDWISE_REQUIRE(folder != nullptr, "shardwise: Gloo's sockets cannot be found: /proc is not mounted");
  int found = -1;
  while (const dirent* entry = readdir(folder)) {
    char* end = nullptr;
    const int fd = static_cast<int>(std::strtol(entry->d_name, &end, 10));
    if (*end != '\0') continue;
    sockaddr_storage self{}, peer{};
    socklen_t bytes = sizeof self;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&self), &bytes) != 0 || !same_address(self, ours)) continue;
    bytes = sizeof peer;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) != 0) continue;
    found = fd;
    if (same_address(peer, theirs)) break;
  }
  closedir(folder);
  return found;
}

// A second descriptor for the socket of a connected pair, found by its addresses: Gloo keeps its own to itself. With it a wait
// ends at its deadline, covers several peers, and can be ended from another thread: Gloo holds the pair's lock in a blocked
// receive, so that its own close() would wait. Also keeps the socket from programs that this process starts. `offered` is where
// the peer listened: connections that this process opened may share one local address, and differ in that; the one that it
// accepted on the pair's own address is alone there.
inline Descriptor socket_of(const gloo::transport::Pair& pair, const std::vector<char>& offered) {
  using gloo::transport::tcp::Address;
  const int fd = connected_socket(Address(pair.address().bytes()).getSockaddr(), Address(offered).getSockaddr());
  if (fd == -1) return {};
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return Descriptor(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

class GlooConnection {
 public:
  using Clock = std::chrono::steady_clock;
  // Payloads of at most so many bytes travel with their header.
  static constexpr std::size_t inline_limit = 16 * 1024;
  // Larger ones in chunks of so many, or fewer where the system's send buffers are small. 16 MiB a rank to each other, 4 ranks on
  // 2 cores: 24 ms; with 32, 128, 256 and 512 KiB 26, 29, 26 and 35; with send buffers of twice the size 27.
  static constexpr std::size_t largest_chunk = 64 * 1024;

  // `pair` is connected to the peer that listened at `offered`, and synchronous; `lower`: whether this rank is the lower one of
  // both.
  GlooConnection(gloo::transport::Pair& pair, int peer, const std::vector<char>& offered, bool lower)
      : peer_(peer), pair_(pair), lower_(lower), socket_(socket_of(pair, offered)),
        out_(sizeof(MessageHeader) + inline_limit), in_(sizeof(MessageHeader) + inline_limit) {
    SHARDWISE_REQUIRE(static_cast<bool>(socket_), text("shardwise: the socket to rank ", peer,
                                                       " was not found: is this Gloo older or newer than Debian's?"));
    sender_ = pair_.createSendBuffer(slot(0, lower_), out_.data(), sizeof(MessageHeader) + inline_limit);
    receiver_ = pair_.createRecvBuffer(slot(0, !lower_), in_.data(), sizeof(MessageHeader) + inline_limit);
    const int bytes = static_cast<int>(4 * largest_chunk);
    setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    chunk_ = std::min(largest_chunk, send_buffer() / 4);
  }

  int peer() const { return peer_; }
  int socket() const { return socket_.get(); }
  std::size_t chunk() const { return chunk_; }
  void limit_chunk(std::size_t bytes) { chunk_ = std::min(chunk_, bytes); }

  // The header, and the payload where it is small: null where it is in payload_room() already. Never waits for long: before a rank sends, it has read all that was sent to it in
  // earlier steps, so only this step's messages may lie in the socket.
  void send_header(const MessageHeader& header, const std::byte* payload) {
    std::memcpy(out_.data(), &header, sizeof header);
    const std::size_t with_it = header.bytes <= inline_limit ? header.bytes : 0;
    if (with_it > 0 && payload != nullptr) std::memcpy(payload_room(), payload, with_it);
    send(*sender_, 0, sizeof header + with_it, 0);
  }
  std::byte* payload_room() { return out_.data() + sizeof(MessageHeader); }
  MessageHeader receive_header() {
    receiver_->waitRecv();
    MessageHeader header;
    std::memcpy(&header, in_.data(), sizeof header);
    return header;
  }
  const std::byte* inlined() const { return in_.data() + sizeof(MessageHeader); }

  // The header of the next message, if it has come; it stays.
  std::optional<MessageHeader> next_header() const {
    struct {
      std::uint64_t bytes, operation, slot, offset, length, remote_offset;  // Gloo's preamble
      MessageHeader header;
    } first;
    static_assert(sizeof first == 48 + sizeof(MessageHeader));
    if (recv(socket_.get(), &first, sizeof first, MSG_PEEK | MSG_DONTWAIT) != static_cast<ssize_t>(sizeof first))
      return {};
    if (first.operation != 0 || first.slot != static_cast<std::uint64_t>(slot(0, !lower_))) return {};
    return first.header;
  }

  // Chunks of large payloads. Not longer than the memory: ended before it goes. Without data: from chunk_room().
  void begin_sending(const std::byte* data, std::size_t bytes) {
    from_room_ = data == nullptr;
    if (from_room_ && !room_) room_ = Buffer(chunk_);
    bulk_sender_ = pair_.createSendBuffer(slot(2, lower_), from_room_ ? room_.data() : const_cast<std::byte*>(data),
                                          from_room_ ? chunk_ : bytes);
  }
  std::byte* chunk_room() { return from_room_ ? room_.data() : nullptr; }
  // The receiver says where each chunk lies: for Gloo it begins at 0 there.
  void send_chunk(std::size_t at, std::size_t bytes) { send(*bulk_sender_, from_room_ ? 0 : at, bytes, 0); }
  void receive_chunk(std::byte* to, std::size_t bytes) {
    bulk_receiver_ = pair_.createRecvBuffer(slot(2, !lower_), to, bytes);
    bulk_receiver_->waitRecv();
    bulk_receiver_.reset();
  }
  // The same, to room of its own, which the next chunk that is received here or elsewhere may take.
  const std::byte* receive_chunk(Buffer& room, std::size_t bytes) {
    if (!room) room = Buffer(largest_chunk);
    receive_chunk(room.data(), bytes);
    return room.data();
  }
  void end_sending() { bulk_sender_.reset(); }
  void end_receiving() { bulk_receiver_.reset(); }

  // A blocked read or write gives up at the earliest after `left`, at the latest half a second later.
  void limit_waits(std::chrono::milliseconds left) {
    if (limit_ >= left && limit_ <= left + std::chrono::milliseconds(500)) return;
    limit_ = left + std::chrono::milliseconds(250);
    const timeval time{limit_.count() / 1000, limit_.count() % 1000 * 1000};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  }

  // From any thread: both ends stop waiting.
  void shut_down() const noexcept { shutdown(socket_.get(), SHUT_RDWR); }

 private:
  // The buffer of a slot is what its writer and its reader have in common. Each direction has its own: Gloo forgets the reader
  // of a slot when a writer of the same number goes.
  static int slot(int kind, bool from_lower) { return kind + (from_lower ? 0 : 1); }

  std::size_t send_buffer() const {
    int bytes = 0;
    socklen_t size = sizeof bytes;
    getsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &bytes, &size);
    return static_cast<std::size_t>(bytes);
  }

  // Gloo fits the socket's send buffer to the largest message so far: put back, or poll() would promise room that is not there.
  void send(gloo::transport::Buffer& buffer, std::size_t at, std::size_t bytes, std::size_t remote_at) {
    buffer.send(at, bytes, remote_at);
    if (bytes <= largest_sent_) return;
    largest_sent_ = bytes;
    const int room = static_cast<int>(4 * largest_chunk);
    setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  }

  const int peer_;
  gloo::transport::Pair& pair_;
  const bool lower_;
  Descriptor socket_;
  std::size_t chunk_ = largest_chunk;
  std::size_t largest_sent_ = 0;
  std::chrono::milliseconds limit_{0};
  bool from_room_ = false;
  Buffer out_, in_, room_;
  std::unique_ptr<gloo::transport::Buffer> sender_, receiver_, bulk_sender_, bulk_receiver_;
};

}  // namespace shardwise::detail
