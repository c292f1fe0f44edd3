// Looks of a rank at what it does not wait for: over MPI while it waits elsewhere, and elsewhere while it waits over MPI.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/mpi/transport.hpp>
#include <shardwise/base/text.hpp>

#include "mpi/ranks.hpp"

using namespace shardwise;
using namespace test;
using detail::MessageHeader;
using detail::MpiTransport;
using detail::text;
using detail::TransportError;

namespace {

int my_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

MessageHeader header_of(Collective collective, std::uint64_t sequence) {
  MessageHeader h;
  h.collective = collective;
  h.sequence = sequence;
  return h;
}

// One message of so many bytes from rank 1 to rank 0, which each calls its own way.
void send_to_0(MpiTransport& transport, const MessageHeader& header, const std::vector<std::byte>& data) {
  const detail::Outgoing out{0, data.data(), data.size()};
  transport.exchange(header, {&out, 1}, {}, MpiTransport::Clock::now() + hang, {});
}
std::vector<std::byte> receive_from_1(MpiTransport& transport, const MessageHeader& header, std::size_t bytes) {
  std::vector<std::byte> data(bytes);
  const detail::Incoming in{1, data.data(), bytes};
  transport.exchange(header, {}, {&in, 1}, MpiTransport::Clock::now() + hang, {});
  return data;
}

// Looks until one throws, or for so long: what it said.
std::string look_for(MpiTransport& transport, const MessageHeader& mine, std::chrono::milliseconds time) {
  const auto until = MpiTransport::Clock::now() + time;
  try {
    while (MpiTransport::Clock::now() < until) {
      transport.look(mine);
      std::this_thread::sleep_for(1ms);
    }
  } catch (const TransportError& e) {
    return text(e.kind == TransportError::mismatch ? "mismatch" : e.what(), " with ", e.peers.at(0), " in ",
                static_cast<int>(e.theirs.collective));
  }
  return "";
}

// Elsewhere: has so much work, and then a message that shows that a rank does something else.
class Elsewhere final : public detail::Transport {
 public:
  explicit Elsewhere(int work) : work_(work) {}
  void exchange(const MessageHeader&, std::span<const detail::Outgoing>, std::span<const detail::Incoming>,
                Clock::time_point, detail::PackFunction, detail::UnpackFunction) override {
    throw Error("nobody exchanges anything here");
  }
  void close() noexcept override {}
  bool work() override { return work_ > 0 && work_-- > 0; }
  void look(const MessageHeader& mine) override {
    looked_for = mine.sequence;
    throw TransportError(7, header_of(Collective::scatter, mine.sequence), 0);
  }
  int work_left() const { return work_; }

  std::uint64_t looked_for = 0;

 private:
  int work_;
};

}  // namespace

TEST_CASE("a look finds a rank that nobody waits for in another operation") {
  detail::start_mpi(detail::read_environment());
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size < 2) return;
  const auto transport = MpiTransport::on(MPI_COMM_WORLD, hang);
  if (my_rank() == 1) send_to_0(*transport, header_of(Collective::broadcast, 3), {});
  if (my_rank() == 0)
    CHECK(look_for(*transport, header_of(Collective::all_reduce, 3), hang) ==
          std::string(text("mismatch with 1 in ", static_cast<int>(Collective::broadcast))));
  meet_by_mpi();
}

TEST_CASE("a look leaves what is no contradiction to the exchange that waits for it") {
  detail::start_mpi(detail::read_environment());
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size < 2) return;
  const auto transport = MpiTransport::on(MPI_COMM_WORLD, hang);
  const MessageHeader ahead = header_of(Collective::broadcast, 4);
  // With its header, in pieces, and with its header again.
  for (const std::size_t bytes : {std::size_t{5}, 3 * MpiTransport::inline_limit, std::size_t{1}}) {
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 3 + bytes);
    if (my_rank() == 1) send_to_0(*transport, ahead, data);
    if (my_rank() == 0) {
      CHECK(look_for(*transport, header_of(Collective::all_reduce, 3), 50ms) == "");
      CHECK(receive_from_1(*transport, ahead, bytes) == data);
    }
  }
  meet_by_mpi();
}

TEST_CASE("who waits over MPI works and looks elsewhere, too") {
  detail::start_mpi(detail::read_environment());
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size < 2) return;
  const auto transport = MpiTransport::on(MPI_COMM_WORLD, hang);
  if (my_rank() == 0) {
    Elsewhere elsewhere(3);
    transport->look_also(elsewhere);
    std::string error;
    try {
      receive_from_1(*transport, header_of(Collective::broadcast, 5), 1);
    } catch (const TransportError& e) {
      error = text(e.kind == TransportError::mismatch ? "mismatch" : e.what(), " with ", e.peers.at(0));
    }
    CHECK(error == "mismatch with 7");
    CHECK(elsewhere.looked_for == 5);
    CHECK(elsewhere.work_left() == 0);
  }
  meet_by_mpi();
}
