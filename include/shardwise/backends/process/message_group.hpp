// MessageGroup: the ranks of one communicator that reach each other by messages: numbers their calls, puts a header before every
// message, and says what went wrong in the words of the operation. Layer: backends/process.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/shared_host.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/message_channel.hpp>

namespace shardwise::detail {

class MessageGroup {
 public:
  // `id` is the same on all its ranks, and another for every group of the world. `host`: the memory that this rank shares with
  // others of its host, in a world of several.
  MessageGroup(std::shared_ptr<Transport> transport, FailureBoard& board, std::vector<int> world_ranks, int world_size,
               std::uint64_t id, std::shared_ptr<SharedHost> host = nullptr)
      : transport_(std::move(transport)), board_(board), world_ranks_(std::move(world_ranks)), world_size_(world_size),
        id_(id), host_(std::move(host)) {}

  int size() const { return static_cast<int>(world_ranks_.size()); }
  std::uint64_t id() const { return id_; }
  int world_rank(int rank) const { return world_ranks_[static_cast<std::size_t>(rank)]; }
  const std::vector<int>& world_ranks() const { return world_ranks_; }
  FailureBoard& board() const { return board_; }
  std::string rank_text(int rank) const { return detail::rank_text(rank, world_rank(rank), size() == world_size_); }

  // One call of this rank; a collective counts, a message does not.
  class Call final : public MessageChannel {
   public:
    Call(MessageGroup& group, const Caller& me, const CallInfo& call)
        : group_(group), me_(me), call_(call), until_(Transport::Clock::now() + me.deadline),
          header_(header_of(call, group.id_, group.collectives_)) {
      if (!header_.is_message()) ++group.collectives_;
      if (group.board_.failed()) [[unlikely]]
        group.throw_failure(me, call);
    }

    int rank() const override { return me_.rank; }
    int size() const override { return group_.size(); }
    void step(std::span<const Outgoing> out, std::span<const Incoming> in, PackFunction pack = {},
              UnpackFunction unpack = {}) override {
      group_.to_world(out, in);
      try {
        group_.transport_->exchange(header_, group_.out_, group_.in_, until_, pack, unpack);
      } catch (const TransportError& error) {
        group_.throw_error(error, header_, me_, call_);
      }
    }

   private:
    MessageGroup& group_;
    const Caller& me_;
    const CallInfo& call_;
    const Transport::Clock::time_point until_;
    const MessageHeader header_;
  };

  // A group of some of these ranks, in the order of `members`; nothing for a rank that is in none. Ranks: all of this group.
  std::shared_ptr<MessageGroup> make_split(const std::vector<int>& members, int color) {
    ++splits_;
    if (members.empty()) return nullptr;
    std::vector<int> world_ranks;
    for (const int r : members) world_ranks.push_back(world_rank(r));
    const auto number = (splits_ << 32) + static_cast<std::uint64_t>(color) + 1;
    const std::uint64_t id = (id_ ^ number) * 0x9e3779b97f4a7c15u;  // another for every path of splits
    return std::make_shared<MessageGroup>(transport_, board_, std::move(world_ranks), world_size_, id ^ id >> 29,
                                          host_);
  }

  const std::shared_ptr<SharedHost>& host() const { return host_; }
  // Of some of these ranks, their places among those that share this one's memory; nothing where not all of them do.
  std::vector<int> places_on_host(const std::vector<int>& members) const {
    std::vector<int> places;
    for (const int r : members)
      for (int place = 0; host_ != nullptr && place < host_->size(); ++place)
        if (host_->world_rank(place) == world_rank(r)) places.push_back(place);
    return places.size() == members.size() ? places : std::vector<int>();
  }

  // All ranks of the world stop with this mismatch.
  [[noreturn, gnu::cold]] void fail(const Caller& me, std::string mismatch) {
    transport_->close();
    report({FailureKind::mismatch, std::move(mismatch), world_rank(me.rank)}, "");
  }

 private:
  [[noreturn, gnu::noinline, gnu::cold]] void throw_failure(const Caller& me, const CallInfo& call) const {
    detail::throw_failure(board_.failure(), operation_text(call, me.axis));
  }
  [[noreturn, gnu::noinline, gnu::cold]] void report(const Failure& failure, const std::string& operation) const {
    board_.fail(failure);
    detail::throw_failure(board_.failure(), operation);
  }

  void to_world(std::span<const Outgoing> out, std::span<const Incoming> in) {
    out_.assign(out.begin(), out.end());
    in_.assign(in.begin(), in.end());
    for (Outgoing& o : out_) o.peer = world_rank(o.peer);
    for (Incoming& i : in_) i.peer = world_rank(i.peer);
  }

  [[gnu::cold]] std::string world_rank_text(int world_rank) const {
    for (int r = 0; r < size(); ++r)
      if (world_ranks_[static_cast<std::size_t>(r)] == world_rank) return rank_text(r);
    return text("world rank ", world_rank);
  }

  // Another rank's failure explains a connection that closed; only without one is the peer the culprit.
  [[noreturn, gnu::noinline, gnu::cold]] void throw_error(const TransportError& error, const MessageHeader& mine,
                                                          const Caller& me, const CallInfo& call) const {
    const std::string operation = operation_text(call, me.axis);
    const int self = world_rank(me.rank);
    switch (error.kind) {
      case TransportError::late: {
        std::string missing;
        for (const int peer : error.peers) missing = text(missing, missing.empty() ? "" : ", ", world_rank_text(peer));
        report({FailureKind::timeout, timeout_text(me, call, rank_text(me.rank), missing), self}, operation);
      }
      case TransportError::mismatch: report({FailureKind::mismatch, mismatch(error, mine, me, call), self}, operation);
      case TransportError::closed:
      case TransportError::lost: break;
    }
    if (board_.await_cause(error.peers.empty() ? -1 : error.peers[0]))
      detail::throw_failure(board_.failure(), operation);
    if (error.peers.empty()) report({FailureKind::peer, error.what(), self}, operation);
    report({FailureKind::peer, text("the connection to rank ", error.peers[0], " was lost: ", error.what()), self},
           operation);
  }

  // The lower rank comes first, so that both sides say the same.
  [[gnu::cold]] std::string mismatch(const TransportError& error, const MessageHeader& mine, const Caller& me,
                                     const CallInfo& call) const {
    const MessageHeader& theirs = error.theirs;
    const int peer = error.peers[0];
    if (!is_known(theirs))
      return text("shardwise::", operation_text(call, me.axis), ": what ", world_rank_text(peer),
                  " sent is no message of this version of shardwise");
    if (agree(mine, theirs)) {
      const auto element = static_cast<std::uint64_t>(size_of(call.dtype));
      return text("shardwise: ranks disagree in ", operation_text(call, me.axis), ": ", world_rank_text(peer),
                  " sends ", theirs.bytes / element, " elements to ", rank_text(me.rank), ", which expects ",
                  error.expected_bytes / element);
    }
    const CallInfo other = call_of(theirs);
    const bool first = world_rank(me.rank) < peer;
    const std::string self_text = rank_text(me.rank), peer_text = world_rank_text(peer);
    if (theirs.group == mine.group && theirs.sequence == mine.sequence)
      return first ? mismatch_text(me.axis, self_text, call, peer_text, other)
                   : mismatch_text(me.axis, peer_text, other, self_text, call);
    const auto says = [&](const std::string& who, const CallInfo& what, const MessageHeader& header) {
      const std::string calls = text(who, " calls ", call_text(what));
      return theirs.group != mine.group ? calls : std::string(text(calls, " after ", header.sequence, " others"));
    };
    const std::string here = says(self_text, call, mine), there = says(peer_text, other, theirs);
    return text("shardwise: ranks call operations in different ", theirs.group != mine.group ? "groups" : "order",
                me.axis.empty() ? "" : " on axis '", me.axis.view(),
                me.axis.empty() ? ": " : "': ", first ? here : there, ", ", first ? there : here);
  }

  const std::shared_ptr<Transport> transport_;
  FailureBoard& board_;
  const std::vector<int> world_ranks_;
  const int world_size_;
  const std::uint64_t id_;
  const std::shared_ptr<SharedHost> host_;
  std::uint64_t collectives_ = 0;
  std::uint64_t splits_ = 0;
  std::vector<Outgoing> out_;  // of the step under way
  std::vector<Incoming> in_;
};

}  // namespace shardwise::detail
