// StoreOptions: what both halves of a store are told; and what both need of threads and words. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <string>
#include <vector>

#include <pthread.h>

#include <shardwise/base/text.hpp>

namespace shardwise::detail {

// Threads made while it lives leave the process' signals to the program's own threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// "2", "1, 3 and 7 more": a message stays readable at any size.
inline std::string list_ranks(const std::vector<int>& ranks) {
  constexpr std::size_t most = 16;
  std::string out;
  for (std::size_t i = 0; i < std::min(ranks.size(), most); ++i) out += text(i == 0 ? "" : ", ", ranks[i]);
  if (ranks.size() > most) out += text(" and ", ranks.size() - most, " more");
  return out;
}

struct StoreOptions {
  int size = 1;  // of the world
  std::string run_id;
  std::string token;
  std::chrono::milliseconds handshake{5000};  // within which a connection must show that it belongs here
  std::size_t most_strangers = 128;  // connections that have not; the oldest gives way
  std::size_t most_bytes = std::size_t{256} << 20;  // of keys and values, and of what one rank has not taken yet
};

}  // namespace shardwise::detail
