// Threads that can less than threads can: what processes are to each other, for tests of the algorithms by themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include <shardwise/backends/thread.hpp>

namespace test {

// They read each other's memory, but do not write it.
struct ReadOnlyThreads {
  static constexpr std::size_t staged_limit = 64;
  static constexpr bool writes_peers = false;

  explicit ReadOnlyThreads(shardwise::ThreadCommunicator c) : threads(std::move(c)) {}
  int rank() const { return threads.rank(); }
  int size() const { return threads.size(); }
  shardwise::Name axis() const { return threads.axis(); }
  std::string rank_text(int r) const { return "rank " + std::to_string(r); }
  [[noreturn]] void fail(const std::string& text) const { throw shardwise::MismatchError(text); }

  void exchange(const shardwise::CallInfo& call, const void* in, std::size_t bytes, void*,
                shardwise::PeersFunction body) const {
    threads.exchange(call, in, bytes, nullptr,
                     [&](const shardwise::Peers& p) { body(shardwise::Peers{p.size, p.in, nullptr}); });
  }
  void exchange_staged(const shardwise::CallInfo& call, const void* in, std::size_t bytes,
                       shardwise::PeersFunction body) const {
    threads.exchange_staged(call, in, bytes, body);
  }

  shardwise::ThreadCommunicator threads;
};

// They send each other blocks of bytes.
struct MessagingThreads : ReadOnlyThreads {
  using ReadOnlyThreads::ReadOnlyThreads;
  bool direct() const { return false; }

  void exchange_packed(const shardwise::CallInfo& call, std::span<const std::int64_t> sends,
                       std::span<const std::int64_t> receives, shardwise::PackFunction pack,
                       shardwise::PeersFunction body) const {
    struct Offer {
      std::vector<std::vector<std::byte>> blocks;
    } offer;
    for (int r = 0; r < size(); ++r) {
      std::vector<std::byte>& block =
          offer.blocks.emplace_back(static_cast<std::size_t>(sends[static_cast<std::size_t>(r)]));
      if (!block.empty()) pack(r, block.size(), block.data());
    }
    std::vector<std::vector<std::byte>> received;
    std::vector<const std::byte*> in;
    threads.exchange(call, &offer, sizeof(offer), nullptr, [&](const shardwise::Peers& peers) {
      for (int r = 0; r < peers.size; ++r)
        received.push_back(reinterpret_cast<const Offer*>(peers.in[r])->blocks[static_cast<std::size_t>(rank())]);
    });
    for (std::size_t r = 0; r < received.size(); ++r) {
      if (static_cast<std::int64_t>(received[r].size()) != receives[r])
        throw std::logic_error("a rank expects other bytes than it is sent");
      in.push_back(received[r].data());
    }
    body(shardwise::Peers{size(), in.data(), nullptr});
  }
};

}  // namespace test
