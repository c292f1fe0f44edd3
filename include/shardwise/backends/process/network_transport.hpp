// NetworkTransport: what transports over a network have in common while they wait: whom for, for how long, and what they look at
// meanwhile. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/backends/process/wait_notes.hpp>

namespace shardwise::detail {

class NetworkTransport : public Transport {
 public:
  void look_also(Transport& other) override { other_ = &other; }

 protected:
  // A wait as long as this is worth a look at what else has come.
  static constexpr std::chrono::milliseconds first_patience{20};

  // Whom the exchange under way waits for, in any order, maybe twice.
  virtual std::vector<int> awaited() const = 0;

  bool work_elsewhere() { return other_ != nullptr && other_->work(); }
  // Nothing came for a while: does a rank that this one does not wait for do something else?
  [[gnu::cold]] void be_suspicious(const MessageHeader& mine) {
    look(mine);
    if (other_ != nullptr) other_->look(mine);
    if (notes_ != nullptr) notes_->compare(mine, missing());
  }
  std::vector<int> missing() const {
    std::vector<int> peers = awaited();
    std::sort(peers.begin(), peers.end());
    peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
    return peers;
  }
  [[noreturn, gnu::cold]] void fail_late() const {
    throw TransportError(TransportError::late, missing(), "the deadline has passed");
  }

 private:
  Transport* other_ = nullptr;
};

}  // namespace shardwise::detail
