// HostedTransport: messages in a world of several hosts: between ranks of one host through the memory that they share, between the
// others by the transport of a network. Layer: backends/process.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <shardwise/backends/process/lanes.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/backends/process/wait_notes.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/comm/stream.hpp>
#include <shardwise/comm/wait.hpp>

namespace shardwise::detail {

// As on the network a header goes before every payload. The receiver copies what the sender offers: no rank writes another's
// memory. A step first offers what goes to ranks of the host, who must not wait for the rest of it, then does all that goes over the
// network, and takes what the host's ranks offer while it waits in that, and after it.
class HostedTransport final : public Transport {
 public:
  // `network` reaches the ranks of the other hosts. `host` has lanes.
  HostedTransport(std::shared_ptr<Transport> network, std::shared_ptr<SharedHost> host)
      : network_(std::move(network)), host_(std::move(host)), lanes_(host_->lanes()),
        places_(static_cast<std::size_t>(host_->world_size()), -1) {
    for (int r = 0; r < host_->size(); ++r) places_[static_cast<std::size_t>(host_->world_rank(r))] = r;
    network_->look_also(*this);
  }

  void exchange(const MessageHeader& header, std::span<const Outgoing> out, std::span<const Incoming> in,
                Clock::time_point until, PackFunction pack, UnpackFunction unpack = {}) override {
    guard(
        [&] {
          sort(out, in);
          header_ = header;
          in_ = in;
          unpack_ = unpack;
          for (const std::size_t i : offered_) offer(i, out[i], header, until, pack);
          if (!sends_.empty() || !receives_.empty()) {
            const auto packed = [&](std::size_t i, std::size_t at, std::size_t bytes, std::byte* to) {
              pack(sent_[i], at, bytes, to);
            };
            const auto unpacked = [&](std::size_t i, std::size_t at, std::size_t bytes, const std::byte* from) {
              unpack(received_[i], at, bytes, from);
            };
            network_->exchange(header, sends_, receives_, until, packed, unpacked);
          }
          while (!expected_.empty()) await_one(until);
          for (const int place : unread_)
            await(
                header, until, [&] { return to(place).is_free(); },
                [&](int r) { return r == place && !to(r).is_free(); });
          unread_.clear();
          copies_.clear();
        },
        [&] { network_->close(); });  // what lies in copies_ may still be read: it stays
  }

  // The ranks of the host learn why from its memory: wakes those that wait.
  void close() noexcept override {
    closed_.store(true);
    network_->close();
    for (int r = 0; r < host_->size(); ++r) lanes_.signal(r).notify();
  }
  void departed(int peer) noexcept override { network_->departed(peer); }
  // Takes a message that has come from a rank of the host.
  bool work() override {
    const auto i = std::find_if(expected_.begin(), expected_.end(), [&](std::size_t n) { return has_come(n); });
    if (i == expected_.end()) return false;
    const std::size_t number = *i;
    expected_.erase(i);
    take(number, header_);
    return true;
  }
  void look(const MessageHeader& mine) override {
    for (int r = 0; r < host_->size(); ++r)
      if (r != host_->self() && from(r).has_message() && contradicts(mine, from(r).header))
        throw TransportError(host_->world_rank(r), from(r).header, from(r).header.bytes);
  }

 private:
  SharedLane& to(int place) const { return lanes_.lane(host_->self(), place); }
  SharedLane& from(int place) const { return lanes_.lane(place, host_->self()); }
  int place_of(int world_rank) const { return places_[static_cast<std::size_t>(world_rank)]; }

  void sort(std::span<const Outgoing> out, std::span<const Incoming> in) {
    sends_.clear(), receives_.clear(), sent_.clear(), received_.clear(), offered_.clear(), expected_.clear();
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (place_of(out[i].peer) >= 0) {
        offered_.push_back(i);
      } else {
        sends_.push_back(out[i]);
        sent_.push_back(i);
      }
    }
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (place_of(in[i].peer) >= 0) {
        expected_.push_back(i);
      } else {
        receives_.push_back(in[i]);
        received_.push_back(i);
      }
    }
  }

  void offer(std::size_t number, const Outgoing& what, const MessageHeader& header, Clock::time_point until,
             PackFunction pack) {
    const int place = place_of(what.peer);
    SharedLane& lane = to(place);
    await(header, until, [&] { return lane.is_free(); }, [&](int r) { return r == place; });
    lane.header = header;
    lane.header.bytes = what.bytes;
    lane.offer = {};
    const std::byte* data = what.data;
    std::byte* room = lane.payload;
    if (what.bytes > SharedLane::inline_limit) {
      if (data == nullptr || !host_->arena().contains(data)) {
        room = copies_.emplace_back(what.bytes).data();
        if (data != nullptr) copy(room, data, what.bytes);
      } else {
        room = nullptr;
      }
      const std::byte* const there = room != nullptr ? room : data;
      if (!host_->arena().contains(there))
        throw TransportError(
            TransportError::lost, {what.peer},
            text("this rank has no room for ", what.bytes, " bytes in the memory that its host shares"));
      lane.offer = {SharedOffer::arena, host_->arena().offset_of(there)};
      unread_.push_back(place);
    } else if (data != nullptr && what.bytes > 0) {
      std::memcpy(room, data, what.bytes);
    }
    if (data == nullptr && what.bytes > 0) pack(number, 0, what.bytes, room);
    lane.posted.store(lane.posted.load(std::memory_order_relaxed) + 1u);
    lanes_.signal(place).notify();
  }

  static void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
    if (bytes < streamed_bytes) {
      std::memcpy(to, from, bytes);
    } else {
      stream_copy(to, from, bytes);
      stream_fence();
    }
  }

  bool has_come(std::size_t i) const { return from(place_of(in_[i].peer)).has_message(); }
  void await_one(Clock::time_point until) {
    const auto some_came = [&] {
      return std::any_of(expected_.begin(), expected_.end(), [&](std::size_t i) { return has_come(i); });
    };
    await(header_, until, some_came, [&](int r) {
      return std::any_of(expected_.begin(), expected_.end(),
                         [&](std::size_t i) { return place_of(in_[i].peer) == r && !has_come(i); });
    });
    work();
  }

  void take(std::size_t number, const MessageHeader& mine) {
    const Incoming& what = in_[number];
    const int place = place_of(what.peer);
    SharedLane& lane = from(place);
    const MessageHeader theirs = lane.header;
    if (!agree(mine, theirs) || theirs.bytes != what.bytes) throw TransportError(what.peer, theirs, what.bytes);
    if (what.bytes > 0) {
      const std::byte* const there =
          lane.offer.place == SharedOffer::nowhere ? lane.payload : host_->find(place, lane.offer);
      what.data != nullptr ? copy(what.data, there, what.bytes) : unpack_(number, 0, what.bytes, there);
    }
    if (closed_.load() || host_->failed()) fail_closed();  // what was read may have been anything
    lane.taken.store(lane.posted.load(std::memory_order_relaxed));
    lanes_.signal(place).notify();
  }

  // Returns once done(). Looks up every 100 ms, whoever wakes it. Whom it waits for: ranks of the host that missing(place) holds for.
  template <class Done, class Missing>
  void await(const MessageHeader& mine, Clock::time_point until, Done done, Missing missing) {
    while (!done()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
      WaitLimit slice(std::clamp(left, std::chrono::milliseconds(0), std::chrono::milliseconds(100)));
      const auto changed = [&] { return done() || closed_.load() || host_->failed(); };
      if (lanes_.signal(host_->self()).wait(changed, host_->patience(), slice) && done()) return;
      if (closed_.load() || host_->failed()) fail_closed();
      be_suspicious(mine, done, missing);
      if (done() || left.count() > 0) continue;
      throw TransportError(TransportError::late, awaited(missing), "the deadline has passed");
    }
  }
  template <class Missing>
  std::vector<int> awaited(Missing missing) const {
    std::vector<int> late;
    for (int r = 0; r < host_->size(); ++r)
      if (missing(r)) late.push_back(host_->world_rank(r));
    return late;
  }

  // Nothing came for a while: has a rank ended, or does one that this one does not wait for do something else?
  template <class Done, class Missing>
  [[gnu::cold]] void be_suspicious(const MessageHeader& mine, Done done, Missing missing) {
    for (int r = 0; r < host_->size(); ++r) {
      if (r == host_->self()) continue;
      const bool ended = host_->dead(r);
      const bool left = host_->departed(r);
      if (missing(r) && (ended || left) && !done())
        throw TransportError(TransportError::lost, {host_->world_rank(r)}, left ? "it has left" : "it has ended");
    }
    look(mine);
    network_->look(mine);
    if (notes_ != nullptr && !done()) notes_->compare(mine, awaited(missing));
  }

  const std::shared_ptr<Transport> network_;
  const std::shared_ptr<SharedHost> host_;
  const SharedLanes lanes_;
  std::vector<int> places_;  // by world rank: among the ranks of the host, or -1

  // Of the exchange under way.
  MessageHeader header_;
  std::span<const Incoming> in_;
  UnpackFunction unpack_;
  std::vector<Outgoing> sends_;  // over the network
  std::vector<Incoming> receives_;
  std::vector<std::size_t> sent_, received_;  // what the caller's lists call them
  std::vector<std::size_t> offered_, expected_;  // within the host, as these call them
  std::vector<int> unread_;
  std::vector<Buffer> copies_;
};

}  // namespace shardwise::detail
