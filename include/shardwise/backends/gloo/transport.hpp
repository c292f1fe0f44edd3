// GlooTransport: messages between processes over Gloo: one pair a peer, bound buffers, synchronous mode, one thread. Gloo's own
// collectives, its unbound buffers and its event loop carry no data. Layer: backends/gloo.
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
#include <span>
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
#include <shardwise/backends/process/wait_notes.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

// A process that uses it ignores SIGPIPE from then on, and must not fork without exec: the child would share the connections.
class GlooTransport final : public Transport {
 public:
  // Of `size` ranks, those that `reaches[rank]` holds for are connected; empty: all others. It must hold for both or for neither
  // of two ranks. `address`: of this host, a number.
  GlooTransport(int rank, int size, const std::string& address, std::vector<bool> reaches = {})
      : rank_(rank), size_(size), reaches_(std::move(reaches)), device_(gloo_device(address)),
        context_(device_->createContext(rank, size)), connections_(static_cast<std::size_t>(size)) {
    if (reaches_.empty()) reaches_.assign(static_cast<std::size_t>(size), true);
    reaches_[static_cast<std::size_t>(rank)] = false;
  }
  ~GlooTransport() override { connections_.clear(); }
  GlooTransport(const GlooTransport&) = delete;
  GlooTransport& operator=(const GlooTransport&) = delete;

  // Connects all pairs. `job`: the same on all ranks, and another for each set of connections that the store knows.
  // Ranks: all. Throws: PeerFailedError, TimeoutError that names whom it waited for.
  void connect(KeyValueStore& store, const std::string& job, std::chrono::milliseconds deadline) {
    const Clock::time_point until = Clock::now() + deadline;
    // Gloo waits five times as long for a connection.
    context_->setTimeout(std::max(deadline / 5, std::chrono::milliseconds(1)));
    const std::vector<std::uint64_t> secrets = offer(store, job);
    const std::vector<Offer> offers = collect(store, job, secrets, until);
    try {
      const LoopTicker ticker(*device_);
      for (const Offer& offer : offers) connect_pair(offer);
      greet(offers, until);
    } catch (const TransportError& e) {
      close();
      const std::string whom = e.peers.empty() ? "" : std::string(text(" to rank ", e.peers[0]));
      const std::string what =
          text("shardwise::rendezvous: rank ", rank_, " could not connect", whom, " over Gloo: ", e.what());
      if (e.kind == TransportError::late) throw TimeoutError(what);
      throw PeerFailedError(what);
    }
  }

  void exchange(const MessageHeader& header, std::span<const Outgoing> out, std::span<const Incoming> in,
                Clock::time_point until, PackFunction pack, UnpackFunction unpack = {}) override {
    if (closed_.load()) fail_closed();
    const FlowsDone done{*this};
    try {
      pack_ = pack;
      unpack_ = unpack;
      start(header, out, in, until);
      while (!sends_.empty() || !receives_.empty()) progress(header, until);
    } catch (...) {
      end_bulk();
      const bool by_monitor = closed_.exchange(true);
      shut_down();
      if (by_monitor) fail_closed();
      throw;
    }
  }

  void close() noexcept override {
    closed_.store(true);
    // A pair that is being connected waits for nothing but this. In a race with the end of that wait, it sees that closed_ is set.
    if (gloo::transport::Pair* pair = connecting_.load()) close_pair(*pair);
    if (connected_.load()) shut_down();
  }

  void look(const MessageHeader& mine) override {
    for (const auto& c : connections_) {
      if (c == nullptr ||
          std::any_of(receives_.begin(), receives_.end(), [&](const Receive& r) { return r.from == c.get(); }))
        continue;
      const std::optional<MessageHeader> theirs = c->next_header();
      if (theirs && contradicts(mine, *theirs)) throw TransportError(c->peer(), *theirs, theirs->bytes);
    }
  }
  void look_also(Transport& other) override { other_ = &other; }

 private:
  // What a rank told the store about its end of the connection to this one.
  struct Offer {
    int peer;
    std::uint64_t secret;  // known to both ends, and to nobody that has no access to the store
    std::vector<char> address;
  };
  struct Send {
    GlooConnection* to;
    const Outgoing* what;
    std::size_t index;
    std::size_t done;
    bool begun;
  };
  struct Receive {
    GlooConnection* from;
    const Incoming* what;
    std::size_t index;
    std::size_t done;
    bool begun;
  };
  // The spans of an exchange end with it.
  struct FlowsDone {
    GlooTransport& transport;
    ~FlowsDone() {
      transport.sends_.clear();
      transport.receives_.clear();
    }
  };

  GlooConnection& connection(int peer) { return *connections_[static_cast<std::size_t>(peer)]; }
  std::size_t index(int peer) const { return static_cast<std::size_t>(peer); }

  [[noreturn, gnu::cold]] static void fail_closed() {
    throw TransportError(TransportError::closed, {}, "this rank's connections are closed");
  }
  [[noreturn, gnu::cold]] static void fail_lost(int peer, const std::string& why) {
    throw TransportError(TransportError::lost, {peer}, why);
  }
  static void close_pair(gloo::transport::Pair& pair) noexcept {
    try {
      pair.close();
    } catch (...) {
    }
  }
  void shut_down() const noexcept {
    for (const auto& c : connections_)
      if (c != nullptr) c->shut_down();
  }

  // ---- rendezvous ------------------------------------------------------------------------------------------------

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
      if (closed_.load()) fail_closed();
      const bool late = std::strstr(e.what(), "timeout") != nullptr;
      throw TransportError(late ? TransportError::late : TransportError::lost, {offer.peer}, first_words(e.what()));
    }
    connecting_.store(nullptr);
    if (closed_.load()) fail_closed();
    connections_[index(offer.peer)] =
        std::make_unique<GlooConnection>(pair, offer.peer, offer.address, rank_ < offer.peer);
  }

  // Whoever connected first is taken for the peer by Gloo: each end shows the secret, and how long its chunks are.
  void greet(const std::vector<Offer>& offers, Clock::time_point until) {
    connected_.store(true);
    if (closed_.load()) fail_closed();
    std::vector<std::byte> nothing(GlooConnection::inline_limit);
    MessageHeader mine;
    mine.bytes =
        nothing.size();  // the largest of its kind, so that Gloo does not shrink the socket's buffer for another
    for (const Offer& offer : offers) {
      GlooConnection& peer = connection(offer.peer);
      peer.limit_waits(left_until(until));
      mine.group = offer.secret;
      mine.elements = static_cast<std::int64_t>(peer.chunk());
      guarded(peer, until, [&] { peer.send_header(mine, nothing.data()); });
    }
    for (const Offer& offer : offers) {
      GlooConnection& peer = connection(offer.peer);
      await_greeting(peer, until);
      MessageHeader theirs;
      guarded(peer, until, [&] { theirs = peer.receive_header(); });
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
      if (closed_.load()) fail_closed();
      if (ready > 0) return;
      if (Clock::now() >= until) throw TransportError(TransportError::late, {peer.peer()}, "it sent no greeting");
    }
  }

  // ---- one exchange ----------------------------------------------------------------------------------------------

  static std::chrono::milliseconds left_until(Clock::time_point until) {
    return std::max(std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()), std::chrono::milliseconds(1));
  }

  // Gloo's errors name an address at best. One that follows from the socket's time limit came at the deadline.
  template <class F>
  static void guarded(GlooConnection& peer, Clock::time_point until, F f) {
    try {
      f();
    } catch (const std::exception& e) {
      if (Clock::now() >= until) throw TransportError(TransportError::late, {peer.peer()}, e.what());
      fail_lost(peer.peer(), first_words(e.what()));
    }
  }
  // Without "[.../pair.cc:591] " before it.
  [[gnu::cold]] static std::string first_words(std::string what) {
    const std::size_t end = what.find("] ");
    return what.starts_with("[") && end != std::string::npos ? what.substr(end + 2) : what;
  }

  void start(MessageHeader header, std::span<const Outgoing> out, std::span<const Incoming> in,
             Clock::time_point until) {
    const std::chrono::milliseconds left = left_until(until);
    for (std::size_t i = 0; i < in.size(); ++i) {
      GlooConnection& from = reached(in[i].peer);
      from.limit_waits(left);
      receives_.push_back({&from, &in[i], i, 0, false});
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      GlooConnection& to = reached(out[i].peer);
      to.limit_waits(left);
      header.bytes = out[i].bytes;
      const bool small = out[i].bytes <= GlooConnection::inline_limit;
      if (small && out[i].bytes > 0 && out[i].data == nullptr) pack_(i, 0, out[i].bytes, to.payload_room());
      guarded(to, until, [&] { to.send_header(header, out[i].data); });
      if (!small) sends_.push_back({&to, &out[i], i, 0, false});
    }
    patience_ = first_patience;
  }

  GlooConnection& reached(int peer) {
    GlooConnection* const c = connections_[index(peer)].get();
    SHARDWISE_REQUIRE(c != nullptr, text("shardwise: rank ", rank_, " has no Gloo connection to rank ", peer));
    return *c;
  }

  // Waits until a socket is ready, and moves one message over each that is.
  void progress(const MessageHeader& header, Clock::time_point until) {
    polled_.clear();
    for (const Receive& r : receives_) polled_.push_back({r.from->socket(), POLLIN, 0});
    for (const Send& s : sends_) polled_.push_back({s.to->socket(), static_cast<short>(POLLOUT | POLLRDHUP), 0});
    const bool worked = other_ != nullptr && other_->work();
    const int ready = poll(polled_.data(), polled_.size(), worked ? 0 : static_cast<int>(patience_.count()));
    if (closed_.load()) fail_closed();
    if (ready <= 0) return worked ? void() : be_suspicious(header, until);

    const std::size_t receives = receives_.size();
    for (std::size_t i = 0; i < receives; ++i)
      if (polled_[i].revents != 0) receive(receives_[i], header, until);
    // The first that can: the others' turn comes when it is through, or does not read.
    for (std::size_t i = 0; i < sends_.size(); ++i) {
      const short events = polled_[receives + i].revents;
      if (events == 0) continue;
      if ((events & (POLLERR | POLLHUP | POLLRDHUP)) != 0) fail_lost(sends_[i].to->peer(), "it closed the connection");
      send(sends_[i], until);
      break;
    }
    std::erase_if(receives_, [](const Receive& r) { return r.begun && r.done == r.what->bytes; });
    std::erase_if(sends_, [](const Send& s) { return s.done == s.what->bytes; });
    if (!(sends_.empty() && receives_.empty()) && Clock::now() >= until) be_suspicious(header, until);
  }

  void receive(Receive& r, const MessageHeader& mine, Clock::time_point until) {
    GlooConnection& from = *r.from;
    if (r.begun) return receive_chunk(r, until);
    MessageHeader theirs;
    guarded(from, until, [&] { theirs = from.receive_header(); });
    if (!agree(mine, theirs) || theirs.bytes != r.what->bytes) throw TransportError(from.peer(), theirs, r.what->bytes);
    r.begun = true;
    if (r.what->bytes > GlooConnection::inline_limit || r.what->bytes == 0) return;
    if (r.what->data != nullptr)
      std::memcpy(r.what->data, from.inlined(), r.what->bytes);
    else
      unpack_(r.index, 0, r.what->bytes, from.inlined());
    r.done = r.what->bytes;
  }

  void receive_chunk(Receive& r, Clock::time_point until) {
    GlooConnection& from = *r.from;
    const std::size_t bytes = std::min(from.chunk(), r.what->bytes - r.done);
    if (r.what->data != nullptr) {
      guarded(from, until, [&] { from.receive_chunk(r.what->data + r.done, bytes); });
    } else {
      const std::byte* chunk = nullptr;
      guarded(from, until, [&] { chunk = from.receive_chunk(room_, bytes); });
      unpack_(r.index, r.done, bytes, chunk);
    }
    r.done += bytes;
  }

  // There is room for a chunk: the write does not block, whatever the peer does.
  void send(Send& s, Clock::time_point until) {
    GlooConnection& to = *s.to;
    if (!s.begun) to.begin_sending(s.what->data, s.what->bytes);
    s.begun = true;
    const std::size_t bytes = std::min(to.chunk(), s.what->bytes - s.done);
    if (std::byte* room = to.chunk_room()) pack_(s.index, s.done, bytes, room);
    guarded(to, until, [&] { to.send_chunk(s.done, bytes); });
    s.done += bytes;
    if (s.done == s.what->bytes) to.end_sending();
  }

  // Nothing came for a while: is it too late, or does a rank that this one does not wait for do something else?
  [[gnu::cold]] void be_suspicious(const MessageHeader& mine, Clock::time_point until) {
    if (Clock::now() >= until) throw TransportError(TransportError::late, awaited(), "the deadline has passed");
    look(mine);
    if (other_ != nullptr) other_->look(mine);
    if (notes_ != nullptr) notes_->compare(mine, awaited());
    for (const Receive& r : receives_) r.from->limit_waits(left_until(until));
    for (const Send& s : sends_) s.to->limit_waits(left_until(until));
    patience_ = std::min(std::chrono::milliseconds(100), left_until(until));
  }

  std::vector<int> awaited() const {
    std::vector<int> peers;
    for (const Receive& r : receives_) peers.push_back(r.from->peer());
    for (const Send& s : sends_) peers.push_back(s.to->peer());
    std::sort(peers.begin(), peers.end());
    peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
    return peers;
  }

  void end_bulk() noexcept {
    for (const Receive& r : receives_) r.from->end_receiving();
    for (const Send& s : sends_) s.to->end_sending();
  }

  static constexpr std::chrono::milliseconds first_patience{20};

  const int rank_, size_;
  std::vector<bool> reaches_;
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
  std::vector<std::unique_ptr<GlooConnection>> connections_;  // by rank; goes before the pairs
  std::atomic<bool> closed_{false}, connected_{false};
  std::atomic<gloo::transport::Pair*> connecting_{nullptr};
  Transport* other_ = nullptr;
  Buffer room_;  // for a chunk that is unpacked

  // Of the exchange under way.
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
  std::vector<pollfd> polled_;
  PackFunction pack_;
  UnpackFunction unpack_;
  std::chrono::milliseconds patience_{0};
};

}  // namespace shardwise::detail
