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
#include <string>
#include <utility>
#include <vector>

#include <shardwise/backends/mpi/runtime.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/backends/process/wait_notes.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/comm/stream.hpp>

namespace shardwise::detail {

// Every operation is on memory of the transport's own: one that is still under way after a failure, which MPI cannot end, harms
// nothing of the caller's. All but close() and departed() on the thread that MPI may be called on.
class MpiTransport final : public Transport {
 public:
  // Payloads of at most so many bytes travel with their header.
  static constexpr std::size_t inline_limit = 16 * 1024;
  // Larger ones in pieces of at most so many, which MPI's int counts: each is a handshake. 12 MiB a rank in a move of four on 2 busy
  // cores, against MPI_Alltoallv with pack and unpack by hand: 1.05 to 1.1; 256 KiB 1.1 to 1.4.
  static constexpr std::size_t largest_piece = 1024 * 1024;

  // In a duplicate of `comm`, where no message of the program's can come between. Ranks: all of `comm`. Throws: TimeoutError.
  static std::shared_ptr<MpiTransport> on(MPI_Comm comm, std::chrono::milliseconds deadline,
                                          std::size_t piece = largest_piece) {
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
  ~MpiTransport() override { leave(); }
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  void exchange(const MessageHeader& header, std::span<const Outgoing> out, std::span<const Incoming> in,
                Clock::time_point until, PackFunction pack, UnpackFunction unpack = {}) override {
    if (closed_.load()) fail_closed();
    runtime_.require_usable();
    try {
      pack_ = pack;
      unpack_ = unpack;
      start(header, out, in);
      while (unfinished_ > 0) progress(header, until);
      if (streams_) stream_fence();
      for (const Incoming& i : in) peers_[index(i.peer)].receive = -1;
    } catch (...) {
      const bool by_monitor = closed_.exchange(true);
      MpiRuntime::expect_trouble();
      if (by_monitor) fail_closed();
      throw;
    }
  }

  void close() noexcept override { closed_.store(true); }
  void departed(int peer) noexcept override { departed_[index(peer)].store(true); }

  void look(const MessageHeader& mine) override {
    for (int peer = 0; peer < size_; ++peer) {
      Peer& from = peers_[index(peer)];
      if (peer == rank_ || from.receive >= 0) continue;
      await_header(peer);
      MPI_Status status;
      int came = 0;
      if (!from.arrived) check(MPI_Test(&requests_[index(peer)], &came, &status), peer);
      if (came != 0) keep_header(peer, status);
      if (!from.arrived) continue;
      const MessageHeader theirs = header_from(peer);
      if (contradicts(mine, theirs)) throw TransportError(peer, theirs, theirs.bytes);
    }
  }
  void look_also(Transport& other) override { other_ = &other; }

 private:
  using Bytes = std::unique_ptr<std::byte[]>;
  enum Tag { header_tag, piece_tag };

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
  // Room for one header with a small payload from and to a peer.
  struct Peer {
    Bytes in, out;
    bool arrived = false;  // `in` holds a message that nobody has looked for yet
    int send = -1, receive = -1;  // which of this exchange
  };
  // Room for one piece.
  struct Slot {
    std::byte* room;
    bool sends;
    std::size_t flow, at, bytes;
  };

  MpiTransport(MpiRuntime& runtime, MPI_Comm comm, std::size_t piece) : runtime_(runtime), comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    // The same on all ranks. Smaller where there are many: four for each message under way.
    piece_ = std::min(piece, std::clamp<std::size_t>(8 * largest_piece / index(size_), 64 * 1024, largest_piece));
    peers_.resize(index(size_));
    requests_.assign(2 * index(size_), MPI_REQUEST_NULL);
    departed_ = std::vector<std::atomic<bool>>(index(size_));
  }

  static std::size_t index(int peer) { return static_cast<std::size_t>(peer); }
  std::size_t first_slot() const { return 2 * index(size_); }
  static Bytes room_of(std::size_t bytes) { return std::make_unique_for_overwrite<std::byte[]>(bytes); }

  [[noreturn, gnu::cold]] static void fail_closed() {
    throw TransportError(TransportError::closed, {}, "this rank's connections are closed");
  }
  static void check(int error, std::vector<int> peer) {
    if (error != MPI_SUCCESS) [[unlikely]]
      throw TransportError(TransportError::lost, std::move(peer), mpi_error_text(error));
  }
  static void check(int error, int peer) {
    if (error != MPI_SUCCESS) [[unlikely]]
      check(error, std::vector<int>{peer});
  }

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
    Peer& to = peers_[index(what.peer)];
    if (to.out == nullptr) to.out = room_of(sizeof header + inline_limit);
    to.send = static_cast<int>(k);
    header.bytes = what.bytes;
    std::memcpy(to.out.get(), &header, sizeof header);
    const std::size_t with_it = what.bytes <= inline_limit ? what.bytes : 0;
    if (with_it > 0) fill(k, 0, with_it, to.out.get() + sizeof header);
    s.next = with_it;
    s.under_way = 1;
    check(MPI_Isend(to.out.get(), static_cast<int>(sizeof header + with_it), MPI_BYTE, what.peer, header_tag, comm_,
                    &requests_[index(size_) + index(what.peer)]),
          what.peer);
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
    Peer& from = peers_[index(peer)];
    MPI_Request& request = requests_[index(peer)];
    if (from.arrived || request != MPI_REQUEST_NULL) return;  // since an earlier exchange
    if (from.in == nullptr) from.in = room_of(sizeof(MessageHeader) + inline_limit);
    check(MPI_Irecv(from.in.get(), static_cast<int>(sizeof(MessageHeader) + inline_limit), MPI_BYTE, peer, header_tag,
                    comm_, &request),
          peer);
  }

  MessageHeader header_from(int peer) const {
    MessageHeader header;
    std::memcpy(&header, peers_[index(peer)].in.get(), sizeof header);
    return header;
  }

  // The header of an awaited message is here.
  void begin(Receive& r, const MessageHeader& mine) {
    Peer& from = peers_[index(r.what->peer)];
    const MessageHeader theirs = header_from(r.what->peer);
    if (!agree(mine, theirs) || theirs.bytes != r.what->bytes)
      throw TransportError(r.what->peer, theirs, r.what->bytes);
    from.arrived = false;
    r.begun = true;
    if (r.what->bytes > inline_limit) return receive_pieces(static_cast<std::size_t>(from.receive));
    if (r.what->bytes > 0)
      deliver(static_cast<std::size_t>(from.receive), 0, r.what->bytes, from.in.get() + sizeof theirs);
    r.done = r.what->bytes;
    --unfinished_;
  }

  // ---- pieces ----------------------------------------------------------------------------------------------------

  std::size_t free_slot() {
    if (free_.empty()) {
      shelves_.emplace_back(shelf * piece_);
      for (std::size_t i = 0; i < shelf; ++i) {
        free_.push_back(slots_.size());
        slots_.push_back({shelves_.back().data() + i * piece_, false, 0, 0, 0});
        requests_.push_back(MPI_REQUEST_NULL);
      }
    }
    const std::size_t slot = free_.back();
    free_.pop_back();
    return slot;
  }

  void send_pieces(std::size_t k) {
    while (sends_[k].next < sends_[k].what->bytes && sends_[k].under_way < window + 1) send_piece(k, free_slot());
  }
  void send_piece(std::size_t k, std::size_t number) {
    Send& s = sends_[k];
    Slot& slot = slots_[number];
    slot.sends = true;
    slot.flow = k;
    slot.bytes = std::min(piece_, s.what->bytes - s.next);
    fill(k, s.next, slot.bytes, slot.room);
    check(MPI_Isend(slot.room, static_cast<int>(slot.bytes), MPI_BYTE, s.what->peer, piece_tag, comm_,
                    &requests_[first_slot() + number]),
          s.what->peer);
    s.next += slot.bytes;
    ++s.under_way;
  }

  void receive_pieces(std::size_t k) {
    for (int i = 0; i < window && receives_[k].next < receives_[k].what->bytes; ++i) receive_piece(k, free_slot());
  }
  void receive_piece(std::size_t k, std::size_t number) {
    Receive& r = receives_[k];
    Slot& slot = slots_[number];
    slot.sends = false;
    slot.flow = k;
    slot.at = r.next;
    slot.bytes = std::min(piece_, r.what->bytes - r.next);
    check(MPI_Irecv(slot.room, static_cast<int>(slot.bytes), MPI_BYTE, r.what->peer, piece_tag, comm_,
                    &requests_[first_slot() + number]),
          r.what->peer);
    r.next += slot.bytes;
  }

  // ---- what has come to its end ----------------------------------------------------------------------------------

  void progress(const MessageHeader& mine, Clock::time_point until) {
    int count = 0;
    done_.resize(requests_.size());
    statuses_.resize(requests_.size());
    const int error =
        MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, done_.data(), statuses_.data());
    if (closed_.load()) fail_closed();
    if (error != MPI_SUCCESS && error != MPI_ERR_IN_STATUS) check(error, std::vector<int>{});
    if (count <= 0) {  // MPI_UNDEFINED is negative
      if (other_ == nullptr || !other_->work()) wait_a_little(mine, until);
      return;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const auto which = static_cast<std::size_t>(done_[i]);
      if (error != MPI_SUCCESS) check(statuses_[i].MPI_ERROR, peer_of(which));
      if (which >= first_slot())
        piece_done(which - first_slot(), statuses_[i]);
      else if (which >= index(size_))
        sent_one(index(peers_[which - index(size_)].send));
      else
        header_came(static_cast<int>(which), statuses_[i], mine);
    }
    progressed();
    if (Clock::now() >= until && unfinished_ > 0) fail_late();
  }

  int peer_of(std::size_t request) const {
    if (request < first_slot()) return static_cast<int>(request) % size_;
    const Slot& slot = slots_[request - first_slot()];
    return slot.sends ? sends_[slot.flow].what->peer : receives_[slot.flow].what->peer;
  }
  static std::size_t bytes_of(const MPI_Status& status) {
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    return static_cast<std::size_t>(std::max(bytes, 0));
  }

  void keep_header(int peer, const MPI_Status& status) {
    Peer& from = peers_[index(peer)];
    const std::size_t bytes = bytes_of(status);
    if (bytes < sizeof(MessageHeader)) std::memset(from.in.get(), 0, sizeof(MessageHeader));  // which nobody knows
    from.arrived = true;
  }
  void header_came(int peer, const MPI_Status& status, const MessageHeader& mine) {
    Peer& from = peers_[index(peer)];
    keep_header(peer, status);
    const MessageHeader theirs = header_from(peer);
    if (from.receive >= 0 && !receives_[index(from.receive)].begun)
      begin(receives_[index(from.receive)], mine);
    else if (contradicts(mine, theirs))
      throw TransportError(peer, theirs, theirs.bytes);
  }

  void sent_one(std::size_t k) {
    Send& s = sends_[k];
    --s.under_way;
    if (s.under_way == 0 && s.next == s.what->bytes) {
      s.finished = true;
      --unfinished_;
    }
  }

  void piece_done(std::size_t number, const MPI_Status& status) {
    Slot& slot = slots_[number];
    const std::size_t k = slot.flow;
    if (slot.sends) {
      if (sends_[k].next < sends_[k].what->bytes) {
        --sends_[k].under_way;
        return send_piece(k, number);
      }
      free_.push_back(number);
      return sent_one(k);
    }
    Receive& r = receives_[k];
    if (bytes_of(status) != slot.bytes)
      throw TransportError(TransportError::lost, {r.what->peer}, "a piece of its message has another size");
    deliver(k, slot.at, slot.bytes, slot.room);
    r.done += slot.bytes;
    if (r.next < r.what->bytes) return receive_piece(k, number);
    free_.push_back(number);
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

  // Nothing came for a while: does a rank that this one does not wait for do something else?
  [[gnu::cold]] void be_suspicious(const MessageHeader& mine) {
    look(mine);
    if (other_ != nullptr) other_->look(mine);
    if (notes_ != nullptr) notes_->compare(mine, awaited());
  }

  std::vector<int> awaited() const {
    std::vector<int> peers;
    for (const Receive& r : receives_)
      if (!r.begun || r.done < r.what->bytes) peers.push_back(r.what->peer);
    for (const Send& s : sends_)
      if (!s.finished) peers.push_back(s.what->peer);
    std::sort(peers.begin(), peers.end());
    peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
    return peers;
  }
  [[noreturn, gnu::cold]] void fail_late() const {
    throw TransportError(TransportError::late, awaited(), "the deadline has passed");
  }
  // Their last messages have had the time to come.
  [[gnu::cold]] void look_for_departed() const {
    for (const int peer : awaited())
      if (departed_[index(peer)].load()) throw TransportError(TransportError::lost, {peer}, "it has ended");
  }

  // ---- the end ---------------------------------------------------------------------------------------------------

  // What is still under way keeps its memory, for ever: MPI may touch it. Then messages may still be on their way too, and a
  // communicator that takes the number of this one would receive them: it stays.
  void leave() noexcept {
    if (runtime_.usable()) {
      for (std::size_t i = 0; i < requests_.size(); ++i)
        if (requests_[i] != MPI_REQUEST_NULL && receives(i)) MPI_Cancel(&requests_[i]);
      const Clock::time_point until = Clock::now() + std::chrono::milliseconds(closed_.load() ? 50 : 1000);
      PollPause pause;
      while (under_way() && Clock::now() < until) {
        int done = 0;
        done_.resize(requests_.size());
        MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &done, done_.data(), MPI_STATUSES_IGNORE);
        pause.rest();
      }
      if (!under_way() && !closed_.load()) MPI_Comm_free(&comm_);
    }
    if (!under_way()) return;
    struct Kept {
      std::vector<Peer> peers;
      std::vector<Buffer> shelves;
      Kept* next;
    };
    static std::atomic<Kept*> kept{nullptr};  // where leak checkers find them
    auto* const mine = new Kept{std::move(peers_), std::move(shelves_), nullptr};
    mine->next = kept.exchange(mine);
  }
  bool receives(std::size_t request) const {
    return request < index(size_) || (request >= first_slot() && !slots_[request - first_slot()].sends);
  }
  bool under_way() const {
    return std::any_of(requests_.begin(), requests_.end(), [](MPI_Request r) { return r != MPI_REQUEST_NULL; });
  }

  // Pieces of a message at a time. With 2 the same move takes 1.2 times MPI_Alltoallv, with 4 1.05 to 1.1.
  static constexpr int window = 4;
  // So many pieces in one block of memory: that lies on huge pages, which the same move takes 1.1 times MPI_Alltoallv with, on
  // small ones 1.4 to 2.1.
  static constexpr std::size_t shelf = 4;
  static constexpr std::chrono::milliseconds first_patience{20};
  static constexpr std::chrono::milliseconds last_messages{300};

  MpiRuntime& runtime_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::size_t piece_ = 0;
  std::vector<Peer> peers_;
  std::vector<Slot> slots_;
  std::vector<Buffer> shelves_;  // their rooms
  std::vector<std::size_t> free_;
  std::vector<MPI_Request> requests_;  // headers from each rank, headers to each rank, slots
  std::vector<std::atomic<bool>> departed_;
  std::atomic<bool> closed_{false};
  Transport* other_ = nullptr;

  // Of the exchange under way.
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
  std::vector<int> done_;
  std::vector<MPI_Status> statuses_;
  PackFunction pack_;
  UnpackFunction unpack_;
  bool streams_ = false;  // what comes is larger than the caches
  std::size_t unfinished_ = 0;
  Clock::time_point quiet_since_{}, next_look_{};
  PollPause pause_;
};

}  // namespace shardwise::detail
