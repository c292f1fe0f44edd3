// MpiRequests: the operations that MPI has under way for a transport, and all memory that they are on: room for headers with small
// payloads, and for pieces of large ones. Layer: backends/mpi.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <shardwise/backends/mpi/runtime.hpp>
#include <shardwise/backends/process/message_header.hpp>
#include <shardwise/backends/process/transport.hpp>
#include <shardwise/base/buffer.hpp>

namespace shardwise::detail {

// Memory of its own: an operation that is still under way after a failure, which MPI cannot end, harms nothing of the caller's.
// All on the thread that MPI may be called on. Throws: TransportError.
class MpiRequests {
 public:
  // Payloads of at most so many bytes travel with their header.
  static constexpr std::size_t inline_limit = 16 * 1024;
  // Larger ones in pieces of at most so many, which MPI's int counts: each is a handshake, and a call of the system. Of 256 KiB, all
  // under way at once: 1.05 times as long in a move of 12 MiB a rank.
  static constexpr std::size_t largest_piece = 1024 * 1024;

  // Room for one piece of a message: the `flow`-th that is sent or received, from byte `at` of it on.
  struct Slot {
    std::byte* room;
    bool sends;
    int peer;
    std::size_t flow, at, bytes;
  };
  // What has come to its end.
  struct Done {
    enum Kind { header_in, header_out, piece } kind;
    std::size_t number;  // of a slot, or the peer
    std::size_t bytes;  // that came
  };

  // `comm` becomes this object's.
  MpiRequests(MpiRuntime& runtime, MPI_Comm comm, std::size_t piece) : runtime_(runtime), comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    // The same on all ranks. Smaller where there are many: some for each message under way.
    piece_ = std::min(piece, std::clamp<std::size_t>(8 * largest_piece / index(size_), 64 * 1024, largest_piece));
    headers_.resize(index(size_));
    requests_.assign(2 * index(size_), MPI_REQUEST_NULL);
  }
  MpiRequests(const MpiRequests&) = delete;
  MpiRequests& operator=(const MpiRequests&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  std::size_t piece() const { return piece_; }

  // ---- headers -------------------------------------------------------------------------------------------------------

  // What `peer` sent last, and its payload where that is small; of zeros where it was too short for a header.
  MessageHeader header_from(int peer) const {
    MessageHeader header;
    std::memcpy(&header, headers_[index(peer)].in.get(), sizeof header);
    return header;
  }
  const std::byte* payload_from(int peer) const { return headers_[index(peer)].in.get() + sizeof(MessageHeader); }
  std::byte* payload_to(int peer) { return room_to(peer) + sizeof(MessageHeader); }

  void send_header(int peer, const MessageHeader& header, std::size_t payload) {
    std::byte* const room = room_to(peer);
    std::memcpy(room, &header, sizeof header);
    check(MPI_Isend(room, static_cast<int>(sizeof header + payload), MPI_BYTE, peer, header_tag, comm_,
                    &requests_[index(size_) + index(peer)]),
          peer);
  }
  // Nothing where it is awaited already.
  void await_header(int peer) {
    MPI_Request& request = requests_[index(peer)];
    if (request != MPI_REQUEST_NULL) return;
    Bytes& room = headers_[index(peer)].in;
    if (room == nullptr) room = room_of(sizeof(MessageHeader) + inline_limit);
    check(MPI_Irecv(room.get(), static_cast<int>(sizeof(MessageHeader) + inline_limit), MPI_BYTE, peer, header_tag,
                    comm_, &request),
          peer);
  }
  // Whether one has come that was awaited.
  bool take_header(int peer) {
    MPI_Status status;
    int came = 0;
    check(MPI_Test(&requests_[index(peer)], &came, &status), peer);
    if (came != 0) require_header(peer, bytes_of(status));
    return came != 0;
  }

  // ---- pieces --------------------------------------------------------------------------------------------------------

  Slot& slot(std::size_t number) { return slots_[number]; }
  std::size_t free_slot() {
    if (free_.empty()) {
      const std::size_t count = std::max<std::size_t>(1, shelf / piece_);
      shelves_.emplace_back(count * piece_);
      for (std::size_t i = 0; i < count; ++i) {
        free_.push_back(slots_.size());
        slots_.push_back({shelves_.back().data() + i * piece_, false, 0, 0, 0, 0});
        requests_.push_back(MPI_REQUEST_NULL);
      }
    }
    const std::size_t number = free_.back();
    free_.pop_back();
    return number;
  }
  void release(std::size_t number) { free_.push_back(number); }

  void send(std::size_t number) {
    const Slot& s = slots_[number];
    check(MPI_Isend(s.room, static_cast<int>(s.bytes), MPI_BYTE, s.peer, piece_tag, comm_, &request_of(number)),
          s.peer);
  }
  void receive(std::size_t number) {
    const Slot& s = slots_[number];
    check(MPI_Irecv(s.room, static_cast<int>(s.bytes), MPI_BYTE, s.peer, piece_tag, comm_, &request_of(number)),
          s.peer);
  }

  // ---- what has come to its end --------------------------------------------------------------------------------------

  // How many have since the last look: done(0) and so on, until the next.
  std::size_t look() {
    const int error = test_some();
    count_ = std::max(count_, 0);  // MPI_UNDEFINED is negative
    failed_ = error == MPI_ERR_IN_STATUS;
    if (!failed_ && error != MPI_SUCCESS) throw TransportError(TransportError::lost, {}, mpi_error_text(error));
    return static_cast<std::size_t>(count_);
  }
  Done done(std::size_t i) {
    const auto which = static_cast<std::size_t>(done_[i]);
    const MPI_Status& status = statuses_[i];
    if (which >= first_slot()) {
      const std::size_t number = which - first_slot();
      check(status, slots_[number].peer);
      return {Done::piece, number, bytes_of(status)};
    }
    const std::size_t peer = which % index(size_);
    check(status, static_cast<int>(peer));
    if (which >= index(size_)) return {Done::header_out, peer, 0};
    require_header(static_cast<int>(peer), bytes_of(status));
    return {Done::header_in, peer, 0};
  }

  // Ends what can be ended. What is still under way keeps its memory, for ever: MPI may touch it. Then messages may still be on their way
  // too, and a communicator that takes the number of this one would receive them: it stays.
  void leave(bool failed) noexcept {
    if (runtime_.usable()) {
      for (std::size_t i = 0; i < requests_.size(); ++i)
        if (requests_[i] != MPI_REQUEST_NULL && receives(i)) MPI_Cancel(&requests_[i]);
      const MpiClock::time_point until = MpiClock::now() + std::chrono::milliseconds(failed ? 50 : 1000);
      PollPause pause;
      while (under_way() && MpiClock::now() < until) {
        test_some();
        pause.rest();
      }
      if (!under_way() && !failed) MPI_Comm_free(&comm_);
    }
    if (!under_way()) return;
    struct Kept {
      std::vector<Header> headers;
      std::vector<Buffer> shelves;
      Kept* next;
    };
    static std::atomic<Kept*> kept{nullptr};  // where leak checkers find them
    auto* const mine = new Kept{std::move(headers_), std::move(shelves_), nullptr};
    mine->next = kept.exchange(mine);
  }

 private:
  using Bytes = std::unique_ptr<std::byte[]>;
  enum Tag { header_tag, piece_tag };
  struct Header {
    Bytes in, out;
  };

  static std::size_t index(int peer) { return static_cast<std::size_t>(peer); }
  std::size_t first_slot() const { return 2 * index(size_); }
  MPI_Request& request_of(std::size_t slot) { return requests_[first_slot() + slot]; }
  static Bytes room_of(std::size_t bytes) { return std::make_unique_for_overwrite<std::byte[]>(bytes); }
  std::byte* room_to(int peer) {
    Bytes& room = headers_[index(peer)].out;
    if (room == nullptr) room = room_of(sizeof(MessageHeader) + inline_limit);
    return room.get();
  }

  static void check(int error, int peer) {
    if (error != MPI_SUCCESS) [[unlikely]]
      throw TransportError(TransportError::lost, {peer}, mpi_error_text(error));
  }
  void check(const MPI_Status& status, int peer) const {
    if (failed_) check(status.MPI_ERROR, peer);
  }
  static std::size_t bytes_of(const MPI_Status& status) {
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    return static_cast<std::size_t>(std::max(bytes, 0));
  }
  void require_header(int peer, std::size_t bytes) {
    if (bytes < sizeof(MessageHeader)) std::memset(headers_[index(peer)].in.get(), 0, sizeof(MessageHeader));
  }

  int test_some() {
    done_.resize(requests_.size());
    statuses_.resize(requests_.size());
    return MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count_, done_.data(), statuses_.data());
  }
  bool receives(std::size_t request) const {
    return request < index(size_) || (request >= first_slot() && !slots_[request - first_slot()].sends);
  }
  bool under_way() const {
    return std::any_of(requests_.begin(), requests_.end(), [](MPI_Request r) { return r != MPI_REQUEST_NULL; });
  }

  // Pieces lie in blocks of so many bytes, which are on huge pages: on small ones, whose addresses the system looks up one by one when
  // another process reads them, a move takes up to twice as long.
  static constexpr std::size_t shelf = std::size_t{4} << 20;

  MpiRuntime& runtime_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::size_t piece_ = 0;
  std::vector<Header> headers_;  // by rank
  std::vector<Slot> slots_;
  std::vector<Buffer> shelves_;  // their rooms
  std::vector<std::size_t> free_;
  std::vector<MPI_Request> requests_;  // headers from each rank, headers to each rank, slots

  // Of the last look.
  int count_ = 0;
  bool failed_ = false;
  std::vector<int> done_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace shardwise::detail
