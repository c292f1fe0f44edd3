// MpiTransport: messages between processes over MPI: nonblocking operations in a communicator of its own, looked at until the
// deadline. MPI's own collectives carry no data, so that sums have the same bits as everywhere. Layer: backends/mpi.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <shardwise/backends/mpi/requests.hpp>
#include <shardwise/backends/mpi/runtime.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/network_transport.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/stream.hpp>

namespace shardwise::detail {

// All but close() and departed() on the thread that MPI may be called on.
class MpiTransport final : public NetworkTransport {
 public:
  static constexpr std::size_t inline_limit = MpiRequests::inline_limit;

  // In a duplicate of `comm`, where no message of the program's can come between. Ranks: all of `comm`. Throws: TimeoutError.
  static std::shared_ptr<MpiTransport> on(MPI_Comm comm, std::chrono::milliseconds deadline,
                                          std::size_t piece = MpiRequests::largest_piece) {
    MpiRuntime& runtime = MpiRuntime::start();
    auto own = std::make_unique<MPI_Comm>(MPI_COMM_NULL);
    MPI_Request request = MPI_REQUEST_NULL;
    const int error = MPI_Comm_idup(comm, own.get(), &request);
    if (error != MPI_SUCCESS)
      throw CommError(text("shardwise::rendezvous: MPI_Comm_idup failed: ", mpi_error_text(error)));
    if (!finish_by(request, MpiClock::now() + deadline)) {
      own.release();  // NOLINT: MPI still writes there
      MpiRuntime::expect_trouble();
      throw TimeoutError(
          text("shardwise::rendezvous: not all ranks of MPI's communicator came within ", deadline.count(), " ms"));
    }
    return std::shared_ptr<MpiTransport>(new MpiTransport(runtime, *own, piece));
  }
  ~MpiTransport() override { requests_.leave(closed_.load()); }
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  void exchange(const MessageHeader& header, std::span<const Outgoing> out, std::span<const Incoming> in,
                Clock::time_point until, PackFunction pack, UnpackFunction unpack = {}) override {
    runtime_.require_usable();
    guard(
        [&] {
          pack_ = pack;
          unpack_ = unpack;
          start(header, out, in);
          while (unfinished_ > 0) progress(header, until);
          if (streams_) stream_fence();
          for (const Incoming& i : in) peers_[index(i.peer)].receive = -1;
        },
        [] { MpiRuntime::expect_trouble(); });
  }

  void close() noexcept override { closed_.store(true); }
  void departed(int peer) noexcept override { departed_[index(peer)].store(true); }

  void look(const MessageHeader& mine) override {
    for (int peer = 0; peer < requests_.size(); ++peer) {
      Peer& from = peers_[index(peer)];
      if (peer == requests_.rank() || from.receive >= 0) continue;
      await_header(peer);
      if (!from.arrived) from.arrived = requests_.take_header(peer);
      if (from.arrived) require_no_contradiction(peer, mine);
    }
  }

 private:
  // One message under way, or what is left of it.
  struct Send {
    const Outgoing* what;
    std::size_t next;  // first byte that MPI has not got
    int under_way;  // operations
    bool finished;
  };
  struct Receive {
    const Incoming* what;
    std::size_t next;  // first byte that no operation waits for
    std::size_t done;
    bool begun;
  };
  struct Peer {
    bool arrived = false;  // a message that nobody has looked for yet
    int send = -1, receive = -1;  // which of this exchange
  };

  MpiTransport(MpiRuntime& runtime, MPI_Comm comm, std::size_t piece)
      : runtime_(runtime), requests_(runtime, comm, piece), peers_(index(requests_.size())),
        departed_(index(requests_.size())) {}

  static std::size_t index(int n) { return static_cast<std::size_t>(n); }

  // ---- one exchange ----------------------------------------------------------------------------------------------

  void start(MessageHeader header, std::span<const Outgoing> out, std::span<const Incoming> in) {
    sends_.clear();
    receives_.clear();
    unfinished_ = out.size() + in.size();
    std::size_t received = 0;
    for (const Incoming& i : in) {
      receives_.push_back({&i, 0, 0, false});
      received += i.bytes;
    }
    streams_ = received >= streamed_bytes;
    for (std::size_t k = 0; k < in.size(); ++k) {
      Peer& from = peers_[index(in[k].peer)];
      from.receive = static_cast<int>(k);
      from.arrived ? begin(receives_[k], header) : await_header(in[k].peer);
    }
    for (const Outgoing& o : out) sends_.push_back({&o, 0, 0, false});
    for (std::size_t k = 0; k < out.size(); ++k) send_header(k, header);
    for (std::size_t k = 0; k < out.size(); ++k) send_pieces(k);
    progressed();
  }

  void send_header(std::size_t k, MessageHeader& header) {
    Send& s = sends_[k];
    const Outgoing& what = *s.what;
    peers_[index(what.peer)].send = static_cast<int>(k);
    header.bytes = what.bytes;
    const std::size_t with_it = what.bytes <= inline_limit ? what.bytes : 0;
    if (with_it > 0) fill(k, 0, with_it, requests_.payload_to(what.peer));
    s.next = with_it;
    s.under_way = 1;
    requests_.send_header(what.peer, header, with_it);
  }

  void fill(std::size_t k, std::size_t at, std::size_t bytes, std::byte* to) {
    const Outgoing& what = *sends_[k].what;
    what.data != nullptr ? static_cast<void>(std::memcpy(to, what.data + at, bytes)) : pack_(k, at, bytes, to);
  }

  void deliver(std::size_t k, std::size_t at, std::size_t bytes, const std::byte* from) {
    std::byte* const data = receives_[k].what->data;
    if (data == nullptr)
      unpack_(k, at, bytes, from);
    else if (streams_)
      stream_copy(data + at, from, bytes);
    else
      std::memcpy(data + at, from, bytes);
  }

  void await_header(int peer) {
    if (!peers_[index(peer)].arrived) requests_.await_header(peer);
  }

  // The header of an awaited message is here.
  void begin(Receive& r, const MessageHeader& mine) {
    Peer& from = peers_[index(r.what->peer)];
    const MessageHeader theirs = requests_.header_from(r.what->peer);
    if (!agree(mine, theirs) || theirs.bytes != r.what->bytes)
      throw TransportError(r.what->peer, theirs, r.what->bytes);
    from.arrived = false;
    r.begun = true;
    if (r.what->bytes > inline_limit) return receive_pieces(index(from.receive));
    if (r.what->bytes > 0) deliver(index(from.receive), 0, r.what->bytes, requests_.payload_from(r.what->peer));
    r.done = r.what->bytes;
    --unfinished_;
  }

  void require_no_contradiction(int peer, const MessageHeader& mine) const {
    const MessageHeader theirs = requests_.header_from(peer);
    if (contradicts(mine, theirs)) throw TransportError(peer, theirs, theirs.bytes);
  }

  // ---- pieces ----------------------------------------------------------------------------------------------------

  void send_pieces(std::size_t k) {
    while (sends_[k].next < sends_[k].what->bytes && sends_[k].under_way < sent_ahead + 1)
      send_piece(k, requests_.free_slot());
  }
  void send_piece(std::size_t k, std::size_t number) {
    Send& s = sends_[k];
    MpiRequests::Slot& slot = requests_.slot(number);
    const std::size_t bytes = std::min(requests_.piece(), s.what->bytes - s.next);
    slot = {slot.room, true, s.what->peer, k, s.next, bytes};
    fill(k, s.next, bytes, slot.room);
    requests_.send(number);
    s.next += bytes;
    ++s.under_way;
  }

  void receive_pieces(std::size_t k) {
    const int rooms = std::max(1, awaited_together / static_cast<int>(receives_.size()));
    for (int i = 0; i < rooms && receives_[k].next < receives_[k].what->bytes; ++i)
      receive_piece(k, requests_.free_slot());
  }
  void receive_piece(std::size_t k, std::size_t number) {
    Receive& r = receives_[k];
    MpiRequests::Slot& slot = requests_.slot(number);
    const std::size_t bytes = std::min(requests_.piece(), r.what->bytes - r.next);
    slot = {slot.room, false, r.what->peer, k, r.next, bytes};
    requests_.receive(number);
    r.next += bytes;
  }

  // ---- what has come to its end ----------------------------------------------------------------------------------

  void progress(const MessageHeader& mine, Clock::time_point until) {
    const std::size_t count = requests_.look();
    if (closed_.load()) fail_closed();
    if (count == 0) {
      if (!work_elsewhere()) wait_a_little(mine, until);
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const MpiRequests::Done done = requests_.done(i);
      if (done.kind == MpiRequests::Done::piece)
        piece_done(done);
      else if (done.kind == MpiRequests::Done::header_out)
        sent_one(index(peers_[done.number].send));
      else
        header_came(static_cast<int>(done.number), mine);
    }
    progressed();
    if (Clock::now() >= until && unfinished_ > 0) fail_late();
  }

  void header_came(int peer, const MessageHeader& mine) {
    Peer& from = peers_[index(peer)];
    from.arrived = true;
    if (from.receive >= 0 && !receives_[index(from.receive)].begun)
      begin(receives_[index(from.receive)], mine);
    else
      require_no_contradiction(peer, mine);
  }

  void sent_one(std::size_t k) {
    Send& s = sends_[k];
    --s.under_way;
    if (s.under_way == 0 && s.next == s.what->bytes) {
      s.finished = true;
      --unfinished_;
    }
  }

  void piece_done(const MpiRequests::Done& done) {
    const MpiRequests::Slot slot = requests_.slot(done.number);
    const std::size_t k = slot.flow;
    if (slot.sends) {
      if (sends_[k].next < sends_[k].what->bytes) {
        --sends_[k].under_way;
        return send_piece(k, done.number);
      }
      requests_.release(done.number);
      return sent_one(k);
    }
    Receive& r = receives_[k];
    if (done.bytes != slot.bytes)
      throw TransportError(TransportError::lost, {r.what->peer}, "a piece of its message has another size");
    deliver(k, slot.at, slot.bytes, slot.room);
    r.done += slot.bytes;
    if (r.next < r.what->bytes) return receive_piece(k, done.number);
    requests_.release(done.number);
    if (r.done == r.what->bytes) --unfinished_;
  }

  // ---- waiting ---------------------------------------------------------------------------------------------------

  void progressed() {
    pause_.start_over();
    quiet_since_ = {};
  }

  void wait_a_little(const MessageHeader& mine, Clock::time_point until) {
    const Clock::time_point now = Clock::now();
    if (quiet_since_ == Clock::time_point{}) quiet_since_ = now;
    if (now >= until) fail_late();
    if (now - quiet_since_ > first_patience && now >= next_look_) {
      next_look_ = now + std::chrono::milliseconds(100);
      be_suspicious(mine);
    }
    if (now - quiet_since_ > last_messages) look_for_departed();
    pause_.rest();
  }

  std::vector<int> awaited() const override {
    std::vector<int> peers;
    for (const Receive& r : receives_)
      if (!r.begun || r.done < r.what->bytes) peers.push_back(r.what->peer);
    for (const Send& s : sends_)
      if (!s.finished) peers.push_back(s.what->peer);
    return peers;
  }
  // Their last messages have had the time to come.
  [[gnu::cold]] void look_for_departed() const {
    for (const int peer : missing())
      if (departed_[index(peer)].load()) throw TransportError(TransportError::lost, {peer}, "it has ended");
  }

  // Pieces of each message that wait for their receiver: what is packed ahead needs no rank to run in between. With 2 a move takes a
  // tenth longer where ranks share cores.
  static constexpr int sent_ahead = 4;
  // Pieces of all messages together that a rank has room for, one of each at least: a room that is used again at once stays in a cache.
  // With 4 of each of three messages a move takes a tenth longer.
  static constexpr int awaited_together = 4;
  static constexpr std::chrono::milliseconds last_messages{300};

  MpiRuntime& runtime_;
  MpiRequests requests_;
  std::vector<Peer> peers_;
  std::vector<std::atomic<bool>> departed_;

  // Of the exchange under way.
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
  PackFunction pack_;
  UnpackFunction unpack_;
  bool streams_ = false;  // what comes is larger than the caches
  std::size_t unfinished_ = 0;
  Clock::time_point quiet_since_{}, next_look_{};
  PollPause pause_;
};

}  // namespace shardwise::detail
