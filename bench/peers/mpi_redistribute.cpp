// Redistributions by MPI's own collectives, with a pack or unpack by hand where the layout asks for one: what a careful
// user writes. mpi_redistribute [ROWS COLUMNS] [float|double] [PAIRS]
#include <cmath>

#include "mpi_support.hpp"

using namespace peers;

namespace {

// `count` blocks of rows x columns, one behind the other, to or from blocks that stand side by side.
template <class T>
void side_by_side_to_stacked(const T* in, T* out, std::int64_t rows, std::int64_t columns, std::int64_t count) {
  for (std::int64_t b = 0; b < count; ++b)
    for (std::int64_t i = 0; i < rows; ++i)
      std::memcpy(out + (b * rows + i) * columns, in + (i * count + b) * columns,
                  static_cast<std::size_t>(columns) * sizeof(T));
}
template <class T>
void stacked_to_side_by_side(const T* in, T* out, std::int64_t rows, std::int64_t columns, std::int64_t count) {
  for (std::int64_t b = 0; b < count; ++b)
    for (std::int64_t i = 0; i < rows; ++i)
      std::memcpy(out + (i * count + b) * columns, in + (b * rows + i) * columns,
                  static_cast<std::size_t>(columns) * sizeof(T));
}

template <class T>
void run(Setup& s, MPI_Datatype type) {
  const std::int64_t n = s.ranks, r = s.rank, h = s.rows / n, w = s.columns / n;
  const auto all = static_cast<std::size_t>(s.rows * s.columns), shard = all / static_cast<std::size_t>(n);
  const int piece = static_cast<int>(h * w), part = static_cast<int>(shard), whole = static_cast<int>(all);
  const auto s0 = block<T>(s, r * h, h, 0, s.columns), s1 = block<T>(s, 0, s.rows, r * w, w);
  const auto full = block<T>(s, 0, s.rows, 0, s.columns);
  std::vector<T> packed(all), out(shard);

  measure<T>(s, "S0->S1", shard, out, s1, [&] {
    side_by_side_to_stacked(s0.data(), packed.data(), h, w, n);
    MPI_Alltoall(packed.data(), piece, type, out.data(), piece, type, MPI_COMM_WORLD);
  });
  measure<T>(s, "S1->S0", shard, out, s0, [&] {
    MPI_Alltoall(s1.data(), piece, type, packed.data(), piece, type, MPI_COMM_WORLD);
    stacked_to_side_by_side(packed.data(), out.data(), h, w, n);
  });
  std::vector<T> gathered(all);
  measure<T>(s, "S0->R", all, gathered, full,
             [&] { MPI_Allgather(s0.data(), part, type, gathered.data(), part, type, MPI_COMM_WORLD); });
  measure<T>(s, "S1->R", all, gathered, full, [&] {
    MPI_Allgather(s1.data(), part, type, packed.data(), part, type, MPI_COMM_WORLD);
    stacked_to_side_by_side(packed.data(), gathered.data(), s.rows, w, n);
  });

  const auto term = block<T>(s, 0, s.rows, 0, s.columns, s.rank);
  measure<T>(s, "P->R", all, gathered, block<T>(s, 0, s.rows, 0, s.columns, -1),
             [&] { MPI_Allreduce(term.data(), gathered.data(), whole, type, MPI_SUM, MPI_COMM_WORLD); });
  measure<T>(s, "P->S0", all, out, block<T>(s, r * h, h, 0, s.columns, -1),
             [&] { MPI_Reduce_scatter_block(term.data(), out.data(), part, type, MPI_SUM, MPI_COMM_WORLD); });
  measure<T>(s, "P->S1", all, out, block<T>(s, 0, s.rows, r * w, w, -1), [&] {
    side_by_side_to_stacked(term.data(), packed.data(), s.rows, w, n);
    MPI_Reduce_scatter_block(packed.data(), out.data(), part, type, MPI_SUM, MPI_COMM_WORLD);
  });

  const int side = static_cast<int>(std::lround(std::sqrt(s.ranks)));
  if (side * side != s.ranks) return;
  const std::int64_t y = r / side, x = r % side, bh = s.rows / side, bw = s.columns / side;
  const auto mine = block<T>(s, y * bh, bh, x * bw, bw);
  const int other = static_cast<int>(x * side + y);
  measure<T>(s, "(S0,S1)->(S1,S0)", shard, out, block<T>(s, x * bh, bh, y * bw, bw), [&] {
    MPI_Sendrecv(mine.data(), part, type, other, 0, out.data(), part, type, other, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
  });
}

}  // namespace

int main(int argc, char** argv) {
  Setup s("MPI", &argc, &argv);
  s.is_double ? run<double>(s, MPI_DOUBLE) : run<float>(s, MPI_FLOAT);
  return 0;
}
