// What the peers over MPI share: values, checks and timings as bench/redistribute has them, one line of JSON a transition.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C++ bindings of MPI 2 warn
#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../support.hpp"

namespace peers {

struct Setup {
  const char* peer;
  int rank = 0, ranks = 1;
  std::int64_t rows = 4096, columns = 4096;
  int pairs = 15;
  double at_most = 4;  // seconds for a transition, after five pairs
  bool is_double = false;
  std::vector<std::byte> from, to;  // of the bound

  Setup(const char* name, int* argc, char*** argv) : peer(name) {
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (*argc > 2) rows = std::atoll((*argv)[1]), columns = std::atoll((*argv)[2]);
    is_double = *argc > 3 && std::strcmp((*argv)[3], "double") == 0;
    if (*argc > 4) pairs = std::atoi((*argv)[4]);
    bench::pin_to_core(rank);
    if (rows % ranks != 0 || columns % ranks != 0) {
      if (rank == 0) std::fprintf(stderr, "%s: rows and columns must divide by the ranks here\n", peer);
      MPI_Abort(MPI_COMM_WORLD, 2);
    }
    const std::size_t bytes = static_cast<std::size_t>(rows * columns) * (is_double ? 8 : 4);
    from.assign(bytes, std::byte{1});
    to.assign(bytes, std::byte{1});
  }
  ~Setup() { MPI_Finalize(); }
};

template <class T>
T value(std::int64_t row, std::int64_t column, int rank) {
  return static_cast<T>(((row * 31 + column * 17) % 1021 + 7 * rank) % 1021);
}
template <class T>
T sum(std::int64_t row, std::int64_t column, int ranks) {
  T s = 0;
  for (int r = 0; r < ranks; ++r) s += value<T>(row, column, r);
  return s;
}

// Rows from `row`, columns from `column`; term -1: the sum of all ranks' terms.
template <class T>
std::vector<T> block(const Setup& s, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                     int term = 0) {
  std::vector<T> b;
  b.reserve(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = row; i < row + rows; ++i)
    for (std::int64_t j = column; j < column + columns; ++j)
      b.push_back(term < 0 ? sum<T>(i, j, s.ranks) : value<T>(i, j, term));
  return b;
}

// Times `move`, whose result is `out`, against a memcpy of the larger local side by the same ranks, batches in turns.
template <class T, class Move>
void measure(Setup& s, const char* transition, std::size_t elements, const std::vector<T>& out,
             const std::vector<T>& expected, Move&& move) {
  const std::size_t bytes = elements * sizeof(T);
  const auto bound = [&] {
    std::memcpy(s.to.data(), s.from.data(), bytes);
    bench::keep(s.to[0]);
    MPI_Barrier(MPI_COMM_WORLD);
  };
  const auto barrier = [] { MPI_Barrier(MPI_COMM_WORLD); };
  double once = 0;
  for (int i = 0; i < 2; ++i) {
    barrier();
    once = bench::seconds([&] { move(), barrier(); });
  }
  int batch = static_cast<int>(std::clamp(0.05 / once, 1.0, 1000.0));
  MPI_Bcast(&batch, 1, MPI_INT, 0, MPI_COMM_WORLD);
  bench::Pairs pairs;
  double spent = 0;
  for (int i = 0;; ++i) {
    int more = i < s.pairs && (i < 5 || spent < s.at_most);
    MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (more == 0) break;
    barrier();
    const double moved = bench::seconds([&] {
      for (int k = 0; k < batch; ++k) move();
      barrier();
    });
    const double copied = bench::seconds([&] {
      for (int k = 0; k < batch; ++k) bound();
    });
    spent += moved + copied;
    pairs.add(moved / batch, copied / batch);
  }
  long long wrong = 0, all = 0;
  for (std::size_t i = 0; i < out.size(); ++i) wrong += !(out[i] == expected[i]);
  MPI_Reduce(&wrong, &all, 1, MPI_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
  if (s.rank == 0)
    std::printf("{\"peer\": \"%s\", \"transition\": \"%s\", \"ratio\": %.4f, \"ratio_25\": %.4f, \"ratio_75\": %.4f, "
                "\"time_s\": %.9g, \"pairs\": %zu, \"wrong\": %lld}\n",
                s.peer, transition, pairs.ratio(), pairs.ratio_at(0.25), pairs.ratio_at(0.75), pairs.subject(),
                pairs.count(), all);
  std::fflush(stdout);
}

}  // namespace peers
