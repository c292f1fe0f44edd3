// Local sockets: how processes of one host and one user hand each other descriptors. Layer: backends/process.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <shardwise/backends/process/descriptor.hpp>

namespace shardwise::detail {

// Descriptors in one message; the kernel takes 253.
inline constexpr std::size_t most_descriptors = 240;

// 32 letters that nobody guesses.
inline std::string random_letters() {
  unsigned char bytes[16] = {};
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) fail(text("getrandom: ", system_text()));
  std::string letters;
  for (const unsigned char b : bytes) letters += {static_cast<char>('a' + b % 16), static_cast<char>('a' + b / 16)};
  return letters;
}

// The name of an abstract socket: no file, gone with the process.
struct LocalAddress {
  sockaddr_un address{};
  socklen_t size;

  explicit LocalAddress(std::string_view name) {
    address.sun_family = AF_UNIX;
    const std::size_t n = std::min(name.size(), sizeof(address.sun_path) - 1);
    std::memcpy(address.sun_path + 1, name.data(), n);
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + n);
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

// Nothing where the system refuses: errno says why.
inline Descriptor listen_locally(std::string_view name) {
  Descriptor s(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const LocalAddress at(name);
  if (s && (bind(s.get(), at.get(), at.size) != 0 || listen(s.get(), SOMAXCONN) != 0)) s.close();
  return s;
}
inline Descriptor connect_locally(std::string_view name) {
  Descriptor s(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const LocalAddress at(name);
  int done = 0;
  do done = s ? connect(s.get(), at.get(), at.size) : -1;
  while (done != 0 && s && errno == EINTR);
  if (done != 0) s.close();
  return s;
}

// Abstract sockets have no permissions: who is at the other end is asked of the kernel.
inline bool same_user(const Descriptor& socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

// Space for the descriptors of one message.
struct DescriptorSpace {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * most_descriptors)> bytes{};
};

// One message, whole. False where the other end is gone.
inline bool send_packet(const Descriptor& socket, const void* data, std::size_t bytes, std::span<const int> fds) {
  iovec part{const_cast<void*>(data), bytes};
  DescriptorSpace space;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = space.bytes.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent = 0;
  do sent = sendmsg(socket.get(), &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(bytes);
}

// One message of exactly `bytes`, with what descriptors it brings. False where none is there (ask poll first), the other end
// is gone, or it is of another size.
inline bool receive_packet(const Descriptor& socket, void* data, std::size_t bytes, std::vector<Descriptor>& fds) {
  iovec part{data, bytes};
  DescriptorSpace space;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.bytes.data();
  message.msg_controllen = space.bytes.size();
  ssize_t got = 0;
  do got = recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0) return false;
  for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < n; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return got == static_cast<ssize_t>(bytes) && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
}

// Until one of them has something to say, at most `left`.
inline void poll_until(std::vector<pollfd>& sockets, std::chrono::steady_clock::duration left) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
  poll(sockets.data(), sockets.size(), static_cast<int>(std::min<decltype(ms)>(ms < 0 ? 0 : ms + 1, 1000)));
}

}  // namespace shardwise::detail
