// meet_over_mpi: where the ranks of a communicator of MPI's meet for everything else: rank 0 says it to the others through MPI.
// Layer: backends/mpi.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <shardwise/backends/mpi/runtime.hpp>
#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/local_socket.hpp>
#include <shardwise/backends/process/place.hpp>
#include <shardwise/backends/process/world.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

// An address of this host that others reach, as a number: what its own name stands for, or that of the first interface that
// is up; the loopback where there is no other.
inline std::string address_for_others() {
  const auto number = [](const sockaddr* a, socklen_t bytes) {
    char host[NI_MAXHOST] = {};
    return getnameinfo(a, bytes, host, sizeof host, nullptr, 0, NI_NUMERICHOST) == 0 ? std::string(host)
                                                                                     : std::string();
  };
  const auto reachable = [](const sockaddr* a) {
    if (a == nullptr) return false;
    if (a->sa_family == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in*>(a)->sin_addr.s_addr) >> 24 != 127;
    if (a->sa_family != AF_INET6) return false;
    const in6_addr* const six = &reinterpret_cast<const sockaddr_in6*>(a)->sin6_addr;
    return !IN6_IS_ADDR_LOOPBACK(six) && !IN6_IS_ADDR_LINKLOCAL(six);
  };
  std::string address;
  char name[256] = {};
  addrinfo *found = nullptr, hints{};
  hints.ai_socktype = SOCK_STREAM;
  if (gethostname(name, sizeof name - 1) == 0 && getaddrinfo(name, nullptr, &hints, &found) == 0) {
    for (const addrinfo* a = found; a != nullptr && address.empty(); a = a->ai_next)
      if (reachable(a->ai_addr)) address = number(a->ai_addr, a->ai_addrlen);
    freeaddrinfo(found);
  }
  ifaddrs* all = nullptr;
  if (!address.empty() || getifaddrs(&all) != 0) return address.empty() ? "127.0.0.1" : address;
  for (const int family : {AF_INET, AF_INET6})
    for (const ifaddrs* i = all; i != nullptr && address.empty(); i = i->ifa_next)
      if (reachable(i->ifa_addr) && i->ifa_addr->sa_family == family && (i->ifa_flags & IFF_UP) != 0)
        address = number(i->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  freeifaddrs(all);
  return address.empty() ? "127.0.0.1" : address;
}

// What rank 0 says; a plain value, that MPI sends as it lies in memory.
struct MpiMeeting {
  char host[128] = {};  // empty: all are on one host
  std::int32_t port = 0;
  char run[40] = {};
  char token[40] = {};  // where it listens for other hosts
};

// A world's place: `environment`'s but for rank, size and where to meet. Ranks: all of `comm`. Throws: TimeoutError.
inline WorldPlace meet_over_mpi(MPI_Comm comm, const LaunchEnvironment& environment,
                                std::chrono::milliseconds deadline) {
  MpiRuntime::start();
  const MpiClock::time_point until = MpiClock::now() + deadline;
  WorldPlace place = place_of(environment);
  place.deadline = deadline;
  MPI_Comm_rank(comm, &place.rank);
  MPI_Comm_size(comm, &place.size);

  struct Said {
    std::uint64_t host = 1469598103934665603u;
    std::vector<std::uint64_t> hosts;
    MpiMeeting meeting;
  };
  auto said = std::make_unique<Said>();
  const auto finish = [&](MPI_Request request) {
    if (finish_by(request, until)) return;
    said.release();  // NOLINT: MPI still reads and writes there
    MpiRuntime::expect_trouble();
    throw TimeoutError(text("shardwise::rendezvous: rank ", place.rank, " of a communicator of MPI's with ", place.size,
                            " ranks waited in vain: not all of them came within ", deadline.count(), " ms"));
  };
  for (const char c : place.host_id) said->host = (said->host ^ static_cast<unsigned char>(c)) * 1099511628211u;
  said->hosts.resize(static_cast<std::size_t>(place.size));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgather(&said->host, 1, MPI_UINT64_T, said->hosts.data(), 1, MPI_UINT64_T, comm, &request);
  finish(request);
  const bool one_host =
      std::all_of(said->hosts.begin(), said->hosts.end(), [&](std::uint64_t h) { return h == said->host; });

  MpiMeeting& at = said->meeting;
  if (place.rank == 0) {
    random_letters().copy(at.run, sizeof at.run - 1);
    if (!one_host) {
      const Endpoint& set = environment.endpoint;  // by SHARDWISE_ADDRESS
      const std::string host = set.host.empty() ? address_for_others() : set.host;
      SHARDWISE_REQUIRE(host.size() < sizeof at.host, text("shardwise: the name of rank 0's host is too long: ", host));
      host.copy(at.host, sizeof at.host - 1);
      at.port = 20000 + static_cast<int>(std::random_device()() % 10000);
      random_letters().copy(at.token, sizeof at.token - 1);
    }
  }
  MPI_Ibcast(&at, static_cast<int>(sizeof at), MPI_BYTE, 0, comm, &request);
  finish(request);

  place.endpoint = Endpoint();
  place.store.run_id = at.run;
  if (at.host[0] == '\0') {
    place.endpoint.local = text("mpi-", at.run);
    return place;
  }
  place.endpoint.host = at.host;
  place.endpoint.port = at.port;
  place.endpoint.ports = 16;  // rank 0 takes the first that is free
  place.endpoint.listen = environment.endpoint.listen;
  if (place.store.token.empty()) place.store.token = at.token;
  return place;
}

}  // namespace shardwise::detail
