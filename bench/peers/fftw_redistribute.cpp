// S0->S1 by FFTW's distributed transpose; its output is asked for transposed, which leaves the elements as they stand.
// fftw_redistribute [ROWS COLUMNS] [float|double] [PAIRS]
#include <fftw3-mpi.h>

#include "mpi_support.hpp"

using namespace peers;

namespace {

constexpr unsigned flags = FFTW_ESTIMATE | FFTW_MPI_TRANSPOSED_OUT;

void run_float(Setup& s) {
  fftwf_mpi_init();
  const std::int64_t h = s.rows / s.ranks, w = s.columns / s.ranks;
  auto in = block<float>(s, s.rank * h, h, 0, s.columns);
  std::vector<float> out(static_cast<std::size_t>(s.rows * w));
  const fftwf_plan plan =
      fftwf_mpi_plan_many_transpose(s.rows, s.columns, 1, h, w, in.data(), out.data(), MPI_COMM_WORLD, flags);
  in = block<float>(s, s.rank * h, h, 0, s.columns);
  measure<float>(s, "S0->S1", out.size(), out, block<float>(s, 0, s.rows, s.rank * w, w),
                 [&] { fftwf_mpi_execute_r2r(plan, in.data(), out.data()); });
  fftwf_destroy_plan(plan);
}

void run_double(Setup& s) {
  fftw_mpi_init();
  const std::int64_t h = s.rows / s.ranks, w = s.columns / s.ranks;
  auto in = block<double>(s, s.rank * h, h, 0, s.columns);
  std::vector<double> out(static_cast<std::size_t>(s.rows * w));
  const fftw_plan plan =
      fftw_mpi_plan_many_transpose(s.rows, s.columns, 1, h, w, in.data(), out.data(), MPI_COMM_WORLD, flags);
  in = block<double>(s, s.rank * h, h, 0, s.columns);
  measure<double>(s, "S0->S1", out.size(), out, block<double>(s, 0, s.rows, s.rank * w, w),
                  [&] { fftw_mpi_execute_r2r(plan, in.data(), out.data()); });
  fftw_destroy_plan(plan);
}

}  // namespace

int main(int argc, char** argv) {
  Setup s("FFTW", &argc, &argv);
  s.is_double ? run_double(s) : run_float(s);
  return 0;
}
