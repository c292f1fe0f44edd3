// GlooTransport: messages between processes over Gloo: one pair a peer, bound buffers, synchronous mode, one thread. Gloo's own
// collectives, its unbound buffers and its event loop carry no data. Layer: backends/gloo.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

#include <shardwise/backends/gloo/connection.hpp>
#include <shardwise/backends/gloo/connections.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/network_transport.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

// A process that uses it ignores SIGPIPE from then on, and must not fork without exec: the child would share the connections.
class GlooTransport final : public NetworkTransport {
 public:
  // As GlooConnections.
  GlooTransport(int rank, int size, const std::string& address, std::vector<bool> reaches = {})
      : connections_(rank, size, address, std::move(reaches)) {}
  GlooTransport(const GlooTransport&) = delete;
  GlooTransport& operator=(const GlooTransport&) = delete;

  // Connects all pairs. `job`: the same on all ranks, and another for each set of connections that the store knows.
  // Ranks: all. Throws: PeerFailedError, TimeoutError that names whom it waited for.
  void connect(KeyValueStore& store, const std::string& job, std::chrono::milliseconds deadline) {
    try {
      connections_.connect(store, job, deadline);
    } catch (const TransportError& e) {
      close();
      const std::string whom = e.peers.empty() ? "" : std::string(text(" to rank ", e.peers[0]));
      const std::string what = text("shardwise::rendezvous: rank ", connections_.rank(), " could not connect", whom,
                                    " over Gloo: ", e.what());
      if (e.kind == TransportError::late) throw TimeoutError(what);
      throw PeerFailedError(what);
    }
  }

  void exchange(const MessageHeader& header, std::span<const Outgoing> out, std::span<const Incoming> in,
                Clock::time_point until, PackFunction pack, UnpackFunction unpack = {}) override {
    const FlowsDone done{*this};
    guard(
        [&] {
          pack_ = pack;
          unpack_ = unpack;
          start(header, out, in, until);
          while (!sends_.empty() || !receives_.empty()) progress(header, until);
        },
        [&] {
          end_bulk();
          connections_.shut_down();
        });
  }

  void close() noexcept override {
    closed_.store(true);
    connections_.close();
  }

  void look(const MessageHeader& mine) override {
    for (const auto& c : connections_.all()) {
      if (c == nullptr ||
          std::any_of(receives_.begin(), receives_.end(), [&](const Receive& r) { return r.from == c.get(); }))
        continue;
      const std::optional<MessageHeader> theirs = c->next_header();
      if (theirs && contradicts(mine, *theirs)) throw TransportError(c->peer(), *theirs, theirs->bytes);
    }
  }

 private:
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

  // ---- one exchange ----------------------------------------------------------------------------------------------

  void start(MessageHeader header, std::span<const Outgoing> out, std::span<const Incoming> in,
             Clock::time_point until) {
    const std::chrono::milliseconds left = left_until(until);
    for (std::size_t i = 0; i < in.size(); ++i) {
      GlooConnection& from = connections_.to(in[i].peer);
      from.limit_waits(left);
      receives_.push_back({&from, &in[i], i, 0, false});
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      GlooConnection& to = connections_.to(out[i].peer);
      to.limit_waits(left);
      header.bytes = out[i].bytes;
      const bool small = out[i].bytes <= GlooConnection::inline_limit;
      if (small && out[i].bytes > 0 && out[i].data == nullptr) pack_(i, 0, out[i].bytes, to.payload_room());
      name_peer_in_errors(to, until, [&] { to.send_header(header, out[i].data); });
      if (!small) sends_.push_back({&to, &out[i], i, 0, false});
    }
    patience_ = first_patience;
  }

  // Waits until a socket is ready, and moves one message over each that is.
  void progress(const MessageHeader& header, Clock::time_point until) {
    polled_.clear();
    for (const Receive& r : receives_) polled_.push_back({r.from->socket(), POLLIN, 0});
    for (const Send& s : sends_) polled_.push_back({s.to->socket(), static_cast<short>(POLLOUT | POLLRDHUP), 0});
    const bool worked = work_elsewhere();
    const int ready = poll(polled_.data(), polled_.size(), worked ? 0 : static_cast<int>(patience_.count()));
    if (closed_.load()) fail_closed();
    if (ready <= 0) return worked ? void() : await_longer(header, until);

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
    if (!(sends_.empty() && receives_.empty()) && Clock::now() >= until) await_longer(header, until);
  }

  void receive(Receive& r, const MessageHeader& mine, Clock::time_point until) {
    GlooConnection& from = *r.from;
    if (r.begun) return receive_chunk(r, until);
    MessageHeader theirs;
    name_peer_in_errors(from, until, [&] { theirs = from.receive_header(); });
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
      name_peer_in_errors(from, until, [&] { from.receive_chunk(r.what->data + r.done, bytes); });
    } else {
      const std::byte* chunk = nullptr;
      name_peer_in_errors(from, until, [&] { chunk = from.receive_chunk(room_, bytes); });
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
    name_peer_in_errors(to, until, [&] { to.send_chunk(s.done, bytes); });
    s.done += bytes;
    if (s.done == s.what->bytes) to.end_sending();
  }

  // Nothing came for a while.
  [[gnu::cold]] void await_longer(const MessageHeader& mine, Clock::time_point until) {
    if (Clock::now() >= until) fail_late();
    be_suspicious(mine);
    for (const Receive& r : receives_) r.from->limit_waits(left_until(until));
    for (const Send& s : sends_) s.to->limit_waits(left_until(until));
    patience_ = std::min(std::chrono::milliseconds(100), left_until(until));
  }

  std::vector<int> awaited() const override {
    std::vector<int> peers;
    for (const Receive& r : receives_) peers.push_back(r.from->peer());
    for (const Send& s : sends_) peers.push_back(s.to->peer());
    return peers;
  }

  void end_bulk() noexcept {
    for (const Receive& r : receives_) r.from->end_receiving();
    for (const Send& s : sends_) s.to->end_sending();
  }

  GlooConnections connections_;
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
