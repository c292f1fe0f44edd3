// Whoever connects to a store and is no rank, and what the store says of them. For tests.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include <shardwise/backends/process/store.hpp>

#include "process/patience.hpp"

namespace test {

// Standard error into a file while it lives.
class CapturedErrors {
 public:
  CapturedErrors() : file_(std::tmpfile()), before_(dup(2)) {
    std::fflush(stderr);
    dup2(fileno(file_), 2);
  }
  ~CapturedErrors() { restore(); }
  CapturedErrors(const CapturedErrors&) = delete;
  CapturedErrors& operator=(const CapturedErrors&) = delete;
  std::string so_far() const {
    std::fflush(stderr);
    std::string all(65536, '\0');
    const ssize_t bytes = pread(fileno(file_), all.data(), all.size(), 0);
    all.resize(bytes < 0 ? 0 : static_cast<std::size_t>(bytes));
    return all;
  }
  std::string restore() {
    if (before_ < 0) return "";
    std::fflush(stderr);
    dup2(before_, 2);
    close(std::exchange(before_, -1));
    std::rewind(file_);
    std::string all(65536, '\0');
    all.resize(std::fread(all.data(), 1, all.size(), file_));
    std::fclose(file_);
    return all;
  }

 private:
  FILE* file_;
  int before_;
};

inline std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

inline shardwise::detail::TimePoint stranger_end() { return shardwise::detail::Clock::now() + hang; }

// An address of the loopback that nobody else has, below the ports that the system gives to connections: there it would be somebody's
// before it is used.
inline shardwise::detail::Endpoint free_endpoint() {
  static int next = 15000 + getpid() % 10000;
  shardwise::detail::Endpoint at;
  at.host = "127.0.0.1";
  at.port = next;
  at.ports = 1000;
  at = shardwise::detail::listen_at_endpoint(at, false).endpoint;
  next = at.port + 1;
  at.ports = 1;
  return at;
}

// A connection to a store over TCP that has said nothing yet.
inline shardwise::detail::Descriptor stranger(const shardwise::detail::Endpoint& at) {
  shardwise::detail::SocketAddress a = shardwise::detail::resolve(at.host).addresses.at(0);
  a.set_port(at.port);
  return shardwise::detail::connect_to(a, stranger_end());
}

// True once the other end has closed.
inline bool is_closed(const shardwise::detail::Descriptor& s) {
  std::string sink;
  const auto end = stranger_end();
  while (shardwise::detail::wait_for(s, POLLIN, end))
    if (shardwise::detail::receive_some(s, sink) != shardwise::detail::SocketRead::more) return true;
  return false;
}

// Writes byte by byte, one every `pause`: whether the other end let all of them come.
inline bool writes_slowly(const shardwise::detail::Descriptor& s, const std::string& bytes,
                          std::chrono::milliseconds pause) {
  for (const char byte : bytes) {
    if (!shardwise::detail::send_all(s, std::string(1, byte), stranger_end())) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

// `count` connections, as many of them open at once as `open`.
inline void crowd(const shardwise::detail::Endpoint& at, int count, int open = 300) {
  std::vector<shardwise::detail::Descriptor> connections(static_cast<std::size_t>(open));
  for (int i = 0; i < count; ++i) connections[static_cast<std::size_t>(i % open)] = stranger(at);
}

}  // namespace test
