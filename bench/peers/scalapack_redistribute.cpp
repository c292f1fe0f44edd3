// Redistributions by ScaLAPACK's p?gemr2d, which moves between any two block-cyclic layouts. A row-major tensor is its
// column-major transposed matrix. scalapack_redistribute [ROWS COLUMNS] [float|double] [PAIRS]
#include "mpi_support.hpp"

using namespace peers;

extern "C" {
int Csys2blacs_handle(MPI_Comm);
void Cblacs_gridinit(int* context, const char* order, int rows, int columns);
void Cblacs_gridexit(int context);
void Cpsgemr2d(int m, int n, const float* a, int ia, int ja, const int* desca, float* b, int ib, int jb,
               const int* descb, int context);
void Cpdgemr2d(int m, int n, const double* a, int ia, int ja, const int* desca, double* b, int ib, int jb,
               const int* descb, int context);
}

namespace {

void gemr2d(int m, int n, const float* a, const int* desca, float* b, const int* descb, int context) {
  Cpsgemr2d(m, n, a, 1, 1, desca, b, 1, 1, descb, context);
}
void gemr2d(int m, int n, const double* a, const int* desca, double* b, const int* descb, int context) {
  Cpdgemr2d(m, n, a, 1, 1, desca, b, 1, 1, descb, context);
}

struct Layout {
  int context = 0;
  int desc[9] = {};

  // `leading`: columns of the local tensor, which are rows of the matrix.
  Layout(const Setup& s, const char* order, int process_rows, int process_columns, std::int64_t row_block,
         std::int64_t column_block, std::int64_t leading) {
    context = Csys2blacs_handle(MPI_COMM_WORLD);
    Cblacs_gridinit(&context, order, process_rows, process_columns);
    const int d[9] = {1,
                      context,
                      static_cast<int>(s.columns),
                      static_cast<int>(s.rows),
                      static_cast<int>(row_block),
                      static_cast<int>(column_block),
                      0,
                      0,
                      static_cast<int>(leading)};
    std::copy(d, d + 9, desc);
  }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  ~Layout() { Cblacs_gridexit(context); }
};

template <class T>
void run(Setup& s) {
  const std::int64_t n = s.ranks, r = s.rank, h = s.rows / n, w = s.columns / n;
  const int m = static_cast<int>(s.columns), k = static_cast<int>(s.rows);
  const auto shard = static_cast<std::size_t>(s.rows * w);
  const auto s0 = block<T>(s, r * h, h, 0, s.columns), s1 = block<T>(s, 0, s.rows, r * w, w);
  std::vector<T> out(shard);
  const Layout rows(s, "Row", 1, s.ranks, s.columns, h, s.columns);
  const Layout columns(s, "Row", s.ranks, 1, w, s.rows, w);
  measure<T>(s, "S0->S1", shard, out, s1,
             [&] { gemr2d(m, k, s0.data(), rows.desc, out.data(), columns.desc, rows.context); });
  measure<T>(s, "S1->S0", shard, out, s0,
             [&] { gemr2d(m, k, s1.data(), columns.desc, out.data(), rows.desc, rows.context); });

  if (s.columns % (64 * n) == 0) {
    std::vector<T> cyclic;
    for (std::int64_t i = 0; i < s.rows; ++i)
      for (std::int64_t j = 0; j < s.columns; ++j)
        if (j / 64 % n == r) cyclic.push_back(value<T>(i, j, 0));
    const Layout blocks(s, "Row", s.ranks, 1, 64, s.rows, w);
    measure<T>(s, "BlockCyclic<1,64>->S0", shard, out, s0,
               [&] { gemr2d(m, k, cyclic.data(), blocks.desc, out.data(), rows.desc, rows.context); });
  }

  int side = 1;
  while (side * side < s.ranks) ++side;
  if (side * side != s.ranks) return;
  const std::int64_t y = r / side, x = r % side, bh = s.rows / side, bw = s.columns / side;
  const auto mine = block<T>(s, y * bh, bh, x * bw, bw);
  const Layout before(s, "Col", side, side, bw, bh, bw), after(s, "Row", side, side, bw, bh, bw);
  measure<T>(s, "(S0,S1)->(S1,S0)", shard, out, block<T>(s, x * bh, bh, y * bw, bw),
             [&] { gemr2d(m, k, mine.data(), before.desc, out.data(), after.desc, before.context); });
}

}  // namespace

int main(int argc, char** argv) {
  Setup s("ScaLAPACK", &argc, &argv);
  s.is_double ? run<double>(s) : run<float>(s);
  return 0;
}
