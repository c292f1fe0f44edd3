// Which of a process' sockets is a Gloo pair's: connections that a process opens may share one local address.
#include <array>
#include <cstdint>

#include <netinet/in.h>
#include <sys/socket.h>

#include <doctest/doctest.h>

#include <shardwise/backends/gloo/connection.hpp>

namespace {

using shardwise::detail::connected_socket;
using shardwise::detail::Descriptor;

Descriptor bound(std::uint16_t port) {
  Descriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(port);
  REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
  return fd;
}

sockaddr_storage address_of(const Descriptor& fd) {
  sockaddr_storage at{};
  socklen_t bytes = sizeof at;
  REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &bytes) == 0);
  return at;
}

}  // namespace

TEST_CASE("of two connections that share a local address, each is found by where it goes to") {
  constexpr std::size_t peers = 3;
  std::array<Descriptor, peers> listeners, opened, accepted;
  std::array<sockaddr_storage, peers> listens{};
  std::uint16_t shared = 0;
  for (std::size_t i = 0; i < peers; ++i) {
    listeners[i] = bound(0);
    REQUIRE(listen(listeners[i].get(), 1) == 0);
    listens[i] = address_of(listeners[i]);
    opened[i] = bound(shared);
    const sockaddr_storage self = address_of(opened[i]);
    shared = ntohs(reinterpret_cast<const sockaddr_in&>(self).sin_port);
    REQUIRE(connect(opened[i].get(), reinterpret_cast<const sockaddr*>(&listens[i]), sizeof(sockaddr_in)) == 0);
    accepted[i] = Descriptor(accept(listeners[i].get(), nullptr, nullptr));
    REQUIRE(accepted[i]);
  }
  const sockaddr_storage ours = address_of(opened[0]), elsewhere = address_of(bound(0));
  for (std::size_t i = 0; i < peers; ++i) {
    CHECK(connected_socket(ours, listens[i]) == opened[i].get());
    // The end that accepted knows no more than where it listens itself; a socket that only listens is none.
    CHECK(connected_socket(listens[i], elsewhere) == accepted[i].get());
  }
  CHECK(connected_socket(elsewhere, ours) == -1);
}
