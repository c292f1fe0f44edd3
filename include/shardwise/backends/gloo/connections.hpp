// GlooConnections: the pairs of one rank, one a peer: how they find each other through the store, and who is at the other end.
// Layer: backends/gloo.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

#include <gloo/transport/context.h>

#include <shardwise/backends/gloo/connection.hpp>
#include <shardwise/backends/gloo/device.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

[[noreturn, gnu::cold]] inline void fail_lost(int peer, const std::string& why) {
  throw TransportError(TransportError::lost, {peer}, why);
}
// Without "[.../pair.cc:591] " before it.
[[gnu::cold]] inline std::string first_words(std::string what) {
  const std::size_t end = what.find("] ");
  return what.starts_with("[") && end != std::string::npos ? what.substr(end + 2) : what;
}
inline std::chrono::milliseconds left_until(Transport::Clock::time_point until) {
  return std::max(std::chrono::ceil<std::chrono::milliseconds>(until - Transport::Clock::now()),
                  std::chrono::milliseconds(1));
}
// Gloo's errors name an address at best. One that follows from the socket's time limit came at the deadline.
template <class F>
void name_peer_in_errors(const GlooConnection& peer, Transport::Clock::time_point until, F f) {
  try {
    f();
  } catch (const std::exception& e) {
    if (Transport::Clock::now() >= until) throw TransportError(TransportError::late, {peer.peer()}, e.what());
    fail_lost(peer.peer(), first_words(e.what()));
  }
}

class GlooConnections {
 public:
  using Clock = Transport::Clock;

  // Of `size` ranks, those that `reaches[rank]` holds for are connected; empty: all others. It must hold for both or for neither
  // of two ranks. `address`: of this host, a number.
  GlooConnections(int rank, int size, const std::string& address, std::vector<bool> reaches)
      : rank_(rank), size_(size), reaches_(std::move(reaches)), device_(gloo_device(address)),
        context_(device_->createContext(rank, size)), connections_(static_cast<std::size_t>(size)) {
    if (reaches_.empty()) reaches_.assign(static_cast<std::size_t>(size), true);
    reaches_[static_cast<std::size_t>(rank)] = false;
  }

  int rank() const { return rank_; }
  // By rank; null where there is none.
  const std::vector<std::unique_ptr<GlooConnection>>& all() const { return connections_; }
  GlooConnection& to(int peer) const {
    GlooConnection* const c = connections_[index(peer)].get();
    SHARDWISE_REQUIRE(c != nullptr, text("shardwise: rank ", rank_, " has no Gloo connection to rank ", peer));
    return *c;
  }

  // Ranks: all. Throws: TransportError, TimeoutError that names whom it waited for.
  void connect(KeyValueStore& store, const std::string& job, std::chrono::milliseconds deadline) {
    const Clock::time_point until = Clock::now() + deadline;
    // Gloo waits five times as long for a connection.
    context_->setTimeout(std::max(deadline / 5, std::chrono::milliseconds(1)));
    const std::vector<std::uint64_t> secrets = offer(store, job);
    const std::vector<Offer> offers = collect(store, job, secrets, until);
    const LoopTicker ticker(*device_);
    for (const Offer& offer : offers) connect_pair(offer);
    greet(offers, until);
  }

  // From any thread: nobody waits for a pair of this rank any more, here or at its other end.
  void close() noexcept {
    closed_.store(true);
    // A pair that is being connected waits for nothing but this. In a race with the end of that wait, it sees that closed_ is set.
    if (gloo::transport::Pair* pair = connecting_.load()) close_pair(*pair);
    if (connected_.load()) shut_down();
  }
  void shut_down() const noexcept {
    for (const auto& c : connections_)
      if (c != nullptr) c->shut_down();
  }

 private:
  // What a rank told the store about its end of the connection to this one.
  struct Offer {
    int peer;
    std::uint64_t secret;  // known to both ends, and to nobody that has no access to the store
    std::vector<char> address;
  };

  static std::size_t index(int peer) { return static_cast<std::size_t>(peer); }

  static void close_pair(gloo::transport::Pair& pair) noexcept {
    try {
      pair.close();
    } catch (...) {
    }
  }
  void require_open() const {
    if (closed_.load()) throw TransportError(TransportError::closed, {}, "this rank's connections are closed");
  }

  static std::string key_of(const std::string& job, int rank) { return text("gloo/", job, "/", rank); }

  // One value holds the addresses and secrets for all peers.
  std::vector<std::uint64_t> offer(KeyValueStore& store, const std::string& job) {
    std::random_device random;
    std::vector<std::uint64_t> secrets(index(size_));
    std::string value;
    for (int peer = 0; peer < size_; ++peer) {
      std::vector<char> address;
      if (reaches_[index(peer)]) address = context_->createPair(peer)->address().bytes();
      secrets[index(peer)] = (std::uint64_t{random()} << 32) ^ random();
      const auto length = static_cast<std::uint64_t>(address.size());
      value.append(reinterpret_cast<const char*>(&secrets[index(peer)]), 8)
          .append(reinterpret_cast<const char*>(&length), 8);
      value.append(address.begin(), address.end());
    }
    store.set(key_of(job, rank_), std::move(value));
    return secrets;
  }

  std::vector<Offer> collect(KeyValueStore& store, const std::string& job, const std::vector<std::uint64_t>& secrets,
                             Clock::time_point until) {
    std::vector<Offer> offers;
    for (int peer = 0; peer < size_; ++peer) {
      if (!reaches_[index(peer)]) continue;
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
      std::string value;
      try {
        value = store.get(key_of(job, peer), std::max(left, std::chrono::milliseconds(1)));
      } catch (const TimeoutError& e) {
        throw TimeoutError(text("shardwise::rendezvous: rank ", rank_, " waited in vain for the addresses of rank ",
                                peer, ": ", e.what()));
      }
      offers.push_back(offer_in(value, peer));
      offers.back().secret ^= secrets[index(peer)];
    }
    return offers;
  }

  Offer offer_in(const std::string& value, int peer) const {
    Offer offer{peer, 0, {}};
    const char* at = value.data();
    const char* const end = at + value.size();
    for (int r = 0; r <= rank_; ++r) {
      std::uint64_t length = 0;
      if (end - at < 16) break;
      std::memcpy(&offer.secret, at, 8);
      std::memcpy(&length, at + 8, 8);
      at += 16;
      if (length > static_cast<std::uint64_t>(end - at)) break;
      if (r == rank_) offer.address.assign(at, at + length);
      at += length;
    }
    SHARDWISE_REQUIRE(!offer.address.empty(), text("shardwise: rank ", peer, " gave no Gloo address for rank ", rank_,
                                                   ": do they run the same program on the same hosts?"));
    return offer;
  }

  void connect_pair(const Offer& offer) {
    gloo::transport::Pair& pair = *context_->getPair(offer.peer);
    connecting_.store(&pair);
    try {
      pair.connect(offer.address);
      pair.setSync(true, false);
    } catch (const std::exception& e) {
      connecting_.store(nullptr);
      require_open();
      const bool late = std::strstr(e.what(), "timeout") != nullptr;
      throw TransportError(late ? TransportError::late : TransportError::lost, {offer.peer}, first_words(e.what()));
    }
    connecting_.store(nullptr);
    require_open();
    connections_[index(offer.peer)] =
        std::make_unique<GlooConnection>(pair, offer.peer, offer.address, rank_ < offer.peer);
  }

  // Whoever connected first is taken for the peer by Gloo: each end shows the secret, and how long its chunks are.
  void greet(const std::vector<Offer>& offers, Clock::time_point until) {
    connected_.store(true);
    require_open();
    std::vector<std::byte> nothing(GlooConnection::inline_limit);
    MessageHeader mine;
    mine.bytes =
        nothing.size();  // the largest of its kind, so that Gloo does not shrink the socket's buffer for another
    for (const Offer& offer : offers) {
      GlooConnection& peer = to(offer.peer);
      peer.limit_waits(left_until(until));
      mine.group = offer.secret;
      mine.elements = static_cast<std::int64_t>(peer.chunk());
      name_peer_in_errors(peer, until, [&] { peer.send_header(mine, nothing.data()); });
    }
    for (const Offer& offer : offers) {
      GlooConnection& peer = to(offer.peer);
      await_greeting(peer, until);
      MessageHeader theirs;
      name_peer_in_errors(peer, until, [&] { theirs = peer.receive_header(); });
      if (!is_known(theirs) || theirs.group != offer.secret || theirs.elements < 1024)
        fail_lost(offer.peer,
                  "who connected in its place does not belong to this run, or is of another version of shardwise");
      peer.limit_chunk(static_cast<std::size_t>(theirs.elements));
    }
  }

  // Not by a look at the message: Gloo's event loop may have taken the first bytes while the pair was still asynchronous.
  void await_greeting(const GlooConnection& peer, Clock::time_point until) const {
    for (;;) {
      pollfd fd{peer.socket(), POLLIN, 0};
      const int ready = poll(&fd, 1, static_cast<int>(std::min<std::int64_t>(left_until(until).count(), 100)));
      require_open();
      if (ready > 0) return;
      if (Clock::now() >= until) throw TransportError(TransportError::late, {peer.peer()}, "it sent no greeting");
    }
  }

  const int rank_, size_;
  std::vector<bool> reaches_;
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
  std::vector<std::unique_ptr<GlooConnection>> connections_;  // by rank; goes before the pairs
  std::atomic<bool> closed_{false}, connected_{false};
  std::atomic<gloo::transport::Pair*> connecting_{nullptr};
};

}  // namespace shardwise::detail
