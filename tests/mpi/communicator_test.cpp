// Ranks that MPI connects: run_mpi.py starts this program under mpirun, with 1 to 7 processes, with shared memory and without.
#include <doctest/doctest.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/mpi.hpp>

#include "comm/conformance.hpp"
#include "mpi/ranks.hpp"

using namespace shardwise;
using namespace test;

namespace {

std::vector<float> sum_of_ranks(const MpiCommunicator& c, std::size_t n = 3) {
  const std::vector<float> in(n, static_cast<float>(c.rank() + 1));
  std::vector<float> out(n);
  c.all_reduce<float>(in, out, ReduceOp::sum);
  return out;
}
std::vector<float> right_sum(int ranks, std::size_t n = 3) {
  return std::vector<float>(n, static_cast<float>(ranks * (ranks + 1) / 2));
}

}  // namespace

TEST_CASE("ranks that MPI started do what every communicator does") {
  const MpiCommunicator c = all_ranks();
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  CHECK(c.size() == size);
  std::string wrong;
  try {
    conforms(c);
  } catch (const std::exception& e) {
    wrong = e.what();
  }
  CHECK(wrong == "");
}

TEST_CASE("a communicator of the program's own: its ranks, its tags and its end stay the program's") {
  const MpiCommunicator world = all_ranks();
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world.rank() % 2, -world.rank(), &part);  // in reverse order
  int rank = 0, size = 0;
  MPI_Comm_rank(part, &rank);
  MPI_Comm_size(part, &size);
  int got = -1;
  MPI_Request any = MPI_REQUEST_NULL;
  MPI_Irecv(&got, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, part, &any);
  const MpiCommunicator c(part, hang);
  CHECK(c.rank() == rank);
  CHECK(c.size() == size);
  CHECK(sum_of_ranks(c, 30'000) == right_sum(size, 30'000));
  MPI_Send(&rank, 1, MPI_INT, (rank + 1) % size, 7, part);
  MPI_Wait(&any, MPI_STATUS_IGNORE);
  CHECK(got == (rank + size - 1) % size);
  MPI_Comm_free(&part);
  CHECK(sum_of_ranks(c) == right_sum(size));
  const auto half = c.split(c.rank() < 1 ? 0 : -1, 0);
  CHECK(half.has_value() == (c.rank() < 1));
}

TEST_CASE("what is no communicator of ranks is refused") {
  const MpiCommunicator c = all_ranks();
  CHECK(contains(thrown<Error>([] { MpiCommunicator none(MPI_COMM_NULL); }), "MPI_COMM_NULL"));
  if (c.size() < 2) return;
  MPI_Comm half = MPI_COMM_NULL, between = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, c.rank() > 0 ? 1 : 0, 0, &half);
  MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, c.rank() > 0 ? 0 : 1, 5, &between);
  CHECK(contains(thrown<Error>([&] { MpiCommunicator two(between); }), "MPI_Intercomm_merge"));
  MPI_Comm_free(&between);
  MPI_Comm_free(&half);
}

TEST_CASE("another thread than MPI's is told so") {
  const MpiCommunicator c = all_ranks();
  if (c.direct() || c.size() < 2) return;
  std::string words;
  std::thread([&] { words = thrown<Error>([&] { c.barrier(); }); }).join();
  CHECK(contains(words, "MPI_THREAD_FUNNELED"));
}

TEST_CASE("ranks that call different operations are both named") {
  const MpiCommunicator c = all_ranks();
  if (c.size() < 2) return;
  const std::string words = thrown<MismatchError>([&] { c.rank() == 1 ? c.barrier() : void(sum_of_ranks(c)); });
  CHECK(contains(words, "rank 1 calls barrier"));
  CHECK(contains(words, "all_reduce"));
  CHECK(thrown<MismatchError>([&] { c.barrier(); }) != "");
  meet_by_mpi();
}

TEST_CASE("who does something else is found by those that wait for a third") {
  const MpiCommunicator c = all_ranks();
  if (c.direct() || c.size() < 3) return;
  if (c.rank() != 1) {  // 1 stays away, and everybody waits for it
    std::vector<float> data(2);
    const std::string words =
        thrown<MismatchError>([&] { c.rank() == 2 ? void(sum_of_ranks(c)) : c.broadcast<float>(data, 1); });
    CHECK(contains(words, "broadcast"));
    CHECK(contains(words, "rank 2 calls all_reduce"));
  }
  meet_by_mpi();
}

TEST_CASE("roots that disagree so that nobody sends are found while all wait") {
  const MpiCommunicator c = all_ranks();
  if (c.size() < 2) return;
  std::vector<float> data(2);
  const std::string words = thrown<MismatchError>([&] { c.broadcast<float>(data, c.rank() == 0 ? 1 : 0); });
  CHECK(contains(words, "rank 0 calls broadcast of float [2] from rank 1"));
  CHECK(contains(words, " calls broadcast of float [2] from rank 0"));
  meet_by_mpi();
}

TEST_CASE("who does not come is named at the deadline") {
  const MpiCommunicator c = all_ranks();
  if (c.size() < 2) return;
  std::vector<float> data(2);
  if (c.rank() != 0)
    CHECK(contains(thrown<TimeoutError>([&] { c.with_deadline(400ms).recv<float>(data, 0); }), "missing: rank 0"));
  meet_by_mpi();
}

TEST_CASE("a rank that gives up is heard, then and later") {
  const MpiCommunicator c = all_ranks();
  if (c.size() < 2) return;
  if (c.rank() == 1) c.abort("out of paper");
  for (int i = 0; i < 2; ++i) {
    const std::string words = thrown<PeerFailedError>([&] { sum_of_ranks(c, 100'000); });
    CHECK(contains(words, "rank 1 aborted: out of paper"));
  }
  meet_by_mpi();
}

TEST_CASE("a rank that ends while others still communicate left early") {
  std::string words;
  int rank = 0, size = 0;
  {
    const MpiCommunicator c = all_ranks();
    rank = c.rank(), size = c.size();
    if (size > 1 && rank != size - 1) words = thrown<PeerFailedError>([&] { c.barrier(); });
  }
  if (size > 1 && rank != size - 1) CHECK(contains(words, "rank " + std::to_string(size - 1) + " left early"));
  meet_by_mpi();
}

// ---- what ends the run: run_mpi.py asks for these alone -----------------------------------------------------------

TEST_CASE("a rank is killed" * doctest::skip()) {
  const MpiCommunicator c = all_ranks();
  for (int i = 0;; ++i) {
    if (i == 100 && c.rank() == 1) std::raise(SIGKILL);
    sum_of_ranks(c, 100'000);
  }
}

TEST_CASE("a rank is stopped" * doctest::skip()) {
  const MpiCommunicator c = all_ranks().with_deadline(1s);
  std::vector<float> data(2);
  if (c.rank() == 1) std::raise(SIGSTOP);
  c.recv<float>(data, 1);
}

TEST_CASE("a rank throws" * doctest::skip()) {
  const MpiCommunicator c = all_ranks();
  if (c.rank() == 1) std::thread([] { throw Error("nobody catches this"); }).join();
  c.barrier();
}
