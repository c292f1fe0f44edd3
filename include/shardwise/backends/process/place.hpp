// place_of: where the variables of a launcher put this process. Layer: backends/process.
#pragma once

#include <cstdlib>
#include <string_view>

#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/world.hpp>

namespace shardwise::detail {

inline WorldPlace place_of(const LaunchEnvironment& environment) {
  WorldPlace place;
  place.rank = environment.rank;
  place.size = environment.size;
  place.endpoint = environment.endpoint;
  place.store.run_id = environment.run_id;
  place.store.token = environment.token;
  place.host_id = environment.host_id;
  const char* const shares = std::getenv("SHARDWISE_SHARED_MEMORY");
  place.shares_memory = shares == nullptr || std::string_view(shares) != "0";
  return place;
}

}  // namespace shardwise::detail
