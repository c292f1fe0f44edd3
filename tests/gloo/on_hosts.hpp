// Forked ranks on several hosts: one machine that says it is several. For tests.
#pragma once

#include <string>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/any/from_env.hpp>

#include "process/host.hpp"

namespace test {

// Which host each rank is on.
using Hosts = std::vector<int>;

// f(ProcessCommunicator) on a rank of each.
template <class F>
ForkedRanks start_on_hosts(const Hosts& hosts, F f,
                           shardwise::detail::ConnectTransport connect = &shardwise::detail::connect_over_gloo) {
  static int worlds = 0;
  const std::string run = "hosts-" + std::to_string(getpid()) + "-" + std::to_string(++worlds);
  return ForkedRanks(static_cast<int>(hosts.size()), [&](int rank) {
    shardwise::detail::WorldPlace place;
    place.rank = rank;
    place.size = static_cast<int>(hosts.size());
    place.endpoint.local = "shardwise-test-" + run;
    place.store.run_id = run;
    place.host_id = "host " + std::to_string(hosts[static_cast<std::size_t>(rank)]);
    place.deadline = hang;
    place.connect = connect;
    f(shardwise::detail::ProcessWorld::join(std::move(place))->communicator());
  });
}

// What went wrong, "" if nothing.
template <class F>
std::string run_on_hosts(const Hosts& hosts, F f,
                         shardwise::detail::ConnectTransport connect = &shardwise::detail::connect_over_gloo) {
  std::string all;
  for (const std::string& words : start_on_hosts(hosts, f, connect).last_words())
    all += words + (words.empty() ? "" : "\n");
  return all;
}

}  // namespace test
