// Stream sockets of the store: resolve, listen, connect, send and receive with a deadline. No signal is ever raised, no
// descriptor survives exec. Layer: backends/process.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/endpoint.hpp>
#include <shardwise/backends/process/local_socket.hpp>

namespace shardwise::detail {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

// For poll: rounded up, so that nobody spins through the last millisecond.
inline int milliseconds_until(TimePoint end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, 3'600'000));
}

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int family() const { return storage.ss_family; }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int port() const {
    if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(storage).sin_port);
    return family() == AF_INET6 ? ntohs(reinterpret_cast<const sockaddr_in6&>(storage).sin6_port) : 0;
  }
  void set_port(int port) {
    const auto network = htons(static_cast<std::uint16_t>(port));
    if (family() == AF_INET) reinterpret_cast<sockaddr_in&>(storage).sin_port = network;
    if (family() == AF_INET6) reinterpret_cast<sockaddr_in6&>(storage).sin6_port = network;
  }
  bool is_loopback() const {
    if (family() == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr) >> 24 == 127;
    return family() == AF_UNIX || IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr);
  }
};

inline SocketAddress local_address(const Endpoint& e) {
  const std::string name = text("shardwise/", e.local);
  const LocalAddress local(name);
  SocketAddress a;
  std::memcpy(&a.storage, local.get(), local.size);
  a.size = local.size;
  return a;
}

// What `host` stands for, port 0; or why it stands for nothing.
struct Resolved {
  std::vector<SocketAddress> addresses;
  std::string error;
};

inline Resolved resolve(const std::string& host, bool to_listen = false) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = to_listen ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  Resolved r;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (code != 0) {
    r.error = code == EAI_SYSTEM ? system_text() : std::string(gai_strerror(code));
    return r;
  }
  for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
    if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
    SocketAddress& made = r.addresses.emplace_back();
    std::memcpy(&made.storage, a->ai_addr, a->ai_addrlen);
    made.size = a->ai_addrlen;
  }
  freeaddrinfo(list);
  return r;
}

// Names of the loopback that need no look-up: what /etc/hosts calls a machine may be 127.0.1.1 there and nothing elsewhere.
inline bool names_loopback(const std::string& host) {
  return host == "localhost" || host.substr(0, 4) == "127." || host == "::1";
}

inline Descriptor stream_socket(int family) {
  return Descriptor(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

inline void set_option(const Descriptor& s, int level, int name, int value) {
  setsockopt(s.get(), level, name, &value, sizeof value);
}

// Small messages at once; a host that is gone without a goodbye is noticed after some 15 s.
inline void set_stream_options(const Descriptor& s, int family) {
  if (family == AF_UNIX) return;
  set_option(s, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(s, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(s, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set_option(s, IPPROTO_TCP, TCP_KEEPINTVL, 3);
  set_option(s, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 15'000);
}

// Nothing where the system refuses: errno says why.
inline Descriptor listen_at(const SocketAddress& at) {
  Descriptor s = stream_socket(at.family());
  if (!s) return s;
  if (at.family() != AF_UNIX) set_option(s, SOL_SOCKET, SO_REUSEADDR, 1);  // a predecessor's connections may linger
  if (at.family() == AF_INET6) set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (bind(s.get(), at.get(), at.size) != 0 || ::listen(s.get(), 1024) != 0) {
    const int reason = errno;
    s.close();
    errno = reason;
  }
  return s;
}

inline SocketAddress name_of(const Descriptor& s, int (*ask)(int, sockaddr*, socklen_t*)) {
  SocketAddress a;
  a.size = sizeof a.storage;
  if (ask(s.get(), a.get(), &a.size) != 0) a = {};
  return a;
}

// Asking a free port of this machine again and again, a socket one day gets the very port that it asks for.
inline bool is_connected_to_itself(const Descriptor& s) {
  const SocketAddress here = name_of(s, getsockname), there = name_of(s, getpeername);
  return here.family() != AF_UNIX && here.size == there.size &&
         std::memcmp(&here.storage, &there.storage, here.size) == 0;
}

// True once the socket can do what `events` asks, or is broken; false at `end`.
inline bool wait_for(const Descriptor& s, short events, TimePoint end) {
  for (;;) {
    pollfd p{s.get(), events, 0};
    const int ready = poll(&p, 1, milliseconds_until(end));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return true;  // the next call says what is wrong
    if (ready == 0 && Clock::now() >= end) {
      errno = ETIMEDOUT;
      return false;
    }
  }
}

// Nothing where it cannot be reached before `end`: errno says why.
inline Descriptor connect_to(const SocketAddress& to, TimePoint end) {
  Descriptor s = stream_socket(to.family());
  if (!s) return s;
  int error = 0;
  if (connect(s.get(), to.get(), to.size) != 0) error = errno;
  if (error == EINPROGRESS || error == EINTR) {
    error = ETIMEDOUT;
    socklen_t size = sizeof error;
    if (wait_for(s, POLLOUT, end)) getsockopt(s.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error == 0 && is_connected_to_itself(s)) {
    const linger reset{1, 0};
    setsockopt(s.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    error = ECONNREFUSED;
  }
  if (error == 0)
    set_stream_options(s, to.family());
  else
    s.close();
  errno = error;
  return s;
}

// All of it, or false: errno says why.
inline bool send_all(const Descriptor& s, std::string_view bytes, TimePoint end) {
  while (!bytes.empty()) {
    const ssize_t n = send(s.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0)
      bytes.remove_prefix(static_cast<std::size_t>(n));
    else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(s, POLLOUT, end)) return false;
    } else if (errno != EINTR)
      return false;
  }
  return true;
}

// Appends what is there. More: perhaps some more may come; closed: the other end has nothing more to say; failed: errno.
enum class SocketRead : unsigned char { more, closed, failed };

inline SocketRead receive_some(const Descriptor& s, std::string& into) {
  char part[16384];
  for (;;) {
    const ssize_t n = recv(s.get(), part, sizeof part, MSG_DONTWAIT);
    if (n > 0) {
      into.append(part, static_cast<std::size_t>(n));
      return SocketRead::more;
    }
    if (n == 0) return SocketRead::closed;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return SocketRead::more;
    if (errno != EINTR) return SocketRead::failed;
  }
}

// Where a store listens: one socket an address family, all with one port.
struct Listener {
  std::vector<Descriptor> sockets;
  Endpoint endpoint;  // with the port that was got
  bool open_to_others = false;  // beyond this host
};

// The addresses to listen on. Throws: Error where the name stands for nothing.
inline std::vector<SocketAddress> addresses_to_listen_on(const Endpoint& e) {
  if (e.is_local()) return {local_address(e)};
  std::string host = e.listen.empty() ? e.host : e.listen;
  Resolved found = resolve(host, true);
  SHARDWISE_REQUIRE(!found.addresses.empty(), text("shardwise: rank 0 cannot listen on '", host, "': ", found.error));
  // A machine that calls itself by 127.0.1.1 is called otherwise by the other hosts.
  const auto loopback = [](const SocketAddress& a) { return a.is_loopback(); };
  if (!names_loopback(host) && std::all_of(found.addresses.begin(), found.addresses.end(), loopback)) {
    found = resolve("0.0.0.0", true);
    const Resolved v6 = resolve("::", true);
    found.addresses.insert(found.addresses.end(), v6.addresses.begin(), v6.addresses.end());
  }
  return found.addresses;
}

// Nothing where the port is taken (errno EADDRINUSE) or no address is this host's.
inline std::optional<Listener> listen_on_port(std::vector<SocketAddress> addresses, const Endpoint& e, int port) {
  Listener made;
  int error = 0;
  for (SocketAddress& a : addresses) {
    a.set_port(port);
    Descriptor s = listen_at(a);
    if (!s) {
      error = errno;
      if (error == EADDRINUSE) break;
      continue;
    }
    if (port == 0) port = name_of(s, getsockname).port();
    made.open_to_others = made.open_to_others || !a.is_loopback();
    made.sockets.push_back(std::move(s));
  }
  errno = error;
  if (made.sockets.empty() || error == EADDRINUSE) return std::nullopt;
  made.endpoint = e;
  made.endpoint.port = port;
  made.endpoint.ports = 1;
  return made;
}

// A job that ends may hold its port a moment longer.
inline constexpr std::chrono::milliseconds patience_with_predecessors{5000};

// The first free port of the endpoint. Throws: Error where there is none, or a token is needed and missing.
inline Listener listen_at_endpoint(const Endpoint& e, bool has_token,
                                   std::chrono::milliseconds patience = patience_with_predecessors) {
  const std::vector<SocketAddress> addresses = addresses_to_listen_on(e);
  const auto inside = [](const SocketAddress& a) { return a.is_loopback(); };
  SHARDWISE_REQUIRE(has_token || std::all_of(addresses.begin(), addresses.end(), inside),
                    text("shardwise: the store of rank 0 would listen at ", to_string(e),
                         ", where other hosts reach it, without a token: set SHARDWISE_TOKEN, or SHARDWISE_TOKEN_FILE "
                         "to a file that holds one, to the same secret on all ranks"));
  const TimePoint end = Clock::now() + patience;
  for (;;) {
    for (int i = 0; i < e.ports; ++i)
      if (std::optional<Listener> made = listen_on_port(addresses, e, e.port == 0 ? 0 : e.port + i))
        return std::move(*made);
    const int error = errno;
    SHARDWISE_REQUIRE(error == EADDRINUSE && Clock::now() < end,
                      text("shardwise: rank 0 cannot listen at ", to_string(e), ": ", std::strerror(error),
                           error == EADDRINUSE ? ". Has another job been started with this address? Give each its own "
                                                 "(SHARDWISE_ADDRESS, MASTER_PORT)"
                                               : ". The address must be one of rank 0's host; SHARDWISE_LISTEN "
                                                 "names another to listen on"));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace shardwise::detail
