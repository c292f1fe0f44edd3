// Messages over MPI: large ones in pieces, packed and unpacked and not, and nothing written where the headers disagree.
#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <shardwise/backends/mpi/transport.hpp>

#include "mpi/ranks.hpp"

using namespace shardwise;
using namespace test;
using detail::MpiTransport;

namespace {

std::byte byte_of(int from, int to, std::size_t i) {
  return static_cast<std::byte>((static_cast<std::size_t>(from * 7 + to * 3) + i * 5 + i / 251) & 255);
}
// From nothing to some hundred pieces; some travel with their header.
std::size_t bytes_between(int from, int to, std::size_t piece) {
  const std::size_t sizes[] = {
      0, 1, MpiTransport::inline_limit, MpiTransport::inline_limit + 1, 60 * piece, 60 * piece + 1};
  return sizes[static_cast<std::size_t>(from * 5 + to * 2) % 6];
}

struct Exchange {
  int rank = 0, size = 0;
  std::vector<std::vector<std::byte>> brought, got;
  std::vector<detail::Outgoing> out;
  std::vector<detail::Incoming> in;

  explicit Exchange(std::size_t piece) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    brought.resize(static_cast<std::size_t>(size));
    got.resize(static_cast<std::size_t>(size));
    for (int r = 0; r < size; ++r) {
      if (r == rank) continue;
      std::vector<std::byte>& mine = brought[static_cast<std::size_t>(r)];
      std::vector<std::byte>& theirs = got[static_cast<std::size_t>(r)];
      mine.resize(bytes_between(rank, r, piece));
      theirs.resize(bytes_between(r, rank, piece));
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = byte_of(rank, r, i);
      out.push_back({r, r % 2 == 0 ? mine.data() : nullptr, mine.size()});
      in.push_back({r, r % 3 == 0 ? nullptr : theirs.data(), theirs.size()});
    }
  }
  // Bytes that are not as they were sent.
  int wrong() const {
    int n = 0;
    for (int r = 0; r < size; ++r)
      for (std::size_t i = 0; i < got[static_cast<std::size_t>(r)].size(); ++i)
        n += got[static_cast<std::size_t>(r)][i] != byte_of(r, rank, i);
    return n;
  }
  void run(MpiTransport& transport, const detail::MessageHeader& header) {
    const auto pack = [&](std::size_t k, std::size_t at, std::size_t bytes, std::byte* to) {
      const std::vector<std::byte>& mine = brought[static_cast<std::size_t>(out[k].peer)];
      for (std::size_t i = 0; i < bytes; ++i) to[i] = mine[at + i];
    };
    const auto unpack = [&](std::size_t k, std::size_t at, std::size_t bytes, const std::byte* from) {
      std::vector<std::byte>& theirs = got[static_cast<std::size_t>(in[k].peer)];
      for (std::size_t i = 0; i < bytes; ++i) theirs[at + i] = from[i];
    };
    transport.exchange(header, out, in, MpiTransport::Clock::now() + hang, pack, unpack);
  }
};

}  // namespace

TEST_CASE("payloads beyond the limit of one operation go in pieces") {
  detail::start_mpi(detail::read_environment());
  for (const std::size_t piece : {std::size_t{999}, std::size_t{4096}, std::size_t{1} << 40}) {
    const auto transport = MpiTransport::on(MPI_COMM_WORLD, hang, piece);
    for (int i = 0; i < 3; ++i) {
      Exchange e(piece > 5000 ? 5000 : piece);
      e.run(*transport, {});
      CHECK(e.wrong() == 0);
    }
  }
}

TEST_CASE("where the headers disagree nothing is written") {
  detail::start_mpi(detail::read_environment());
  const auto transport = MpiTransport::on(MPI_COMM_WORLD, hang, 999);
  Exchange e(999);
  if (e.size < 2) return;
  detail::MessageHeader header;
  header.sequence = static_cast<std::uint64_t>(e.rank);  // all do something else
  std::string error;
  try {
    e.run(*transport, header);
  } catch (const detail::TransportError& t) {
    error = t.kind == detail::TransportError::mismatch ? "mismatch" : t.what();
  }
  CHECK(error == "mismatch");
  int written = 0;
  for (const auto& block : e.got)
    for (const std::byte b : block) written += b != std::byte{0};
  CHECK(written == 0);
  CHECK_THROWS_AS(e.run(*transport, header), detail::TransportError);  // closed
  meet_by_mpi();
}

TEST_CASE("who waits at the deadline says for whom") {
  detail::start_mpi(detail::read_environment());
  const auto transport = MpiTransport::on(MPI_COMM_WORLD, hang);
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > 1 && rank == 0) {
    std::byte data{};
    const detail::Incoming from{size - 1, &data, 1};
    std::vector<int> late;
    try {
      transport->exchange({}, {}, {&from, 1}, MpiTransport::Clock::now() + 200ms, {});
    } catch (const detail::TransportError& t) {
      if (t.kind == detail::TransportError::late) late = t.peers;
    }
    CHECK(late == std::vector<int>{size - 1});
  }
  meet_by_mpi();
}
