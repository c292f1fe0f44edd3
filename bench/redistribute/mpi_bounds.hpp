// What the MPI library itself does with the bytes of a move: packed and unpacked by hand where the layout asks for it, as a careful
// user writes it.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C++ bindings of MPI 2 warn
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <shardwise/backends/any.hpp>

#include "run.hpp"

namespace bench {

// `count` blocks of so many rows, `row` bytes wide, that stand side by side, to blocks one behind the other, and back. In the order of the
// rows that stand side by side: block by block is up to a fifth slower.
inline void stack_blocks(const std::byte* in, std::byte* out, std::size_t rows, std::size_t row, std::size_t count) {
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t b = 0; b < count; ++b) std::memcpy(out + (b * rows + i) * row, in + (i * count + b) * row, row);
}
inline void unstack_blocks(const std::byte* in, std::byte* out, std::size_t rows, std::size_t row, std::size_t count) {
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t b = 0; b < count; ++b) std::memcpy(out + (i * count + b) * row, in + (b * rows + i) * row, row);
}

class MpiBound {
 public:
  MpiBound(int ranks, std::size_t in, std::size_t packed, std::size_t out)
      : ranks_(static_cast<std::size_t>(ranks)), in_(touched_memory(in)), packed_(touched_memory(packed)),
        out_(touched_memory(out)), counts_(ranks_), offsets_(ranks_) {}

  std::byte* in() const { return in_.get(); }
  std::byte* packed() const { return packed_.get(); }
  std::byte* out() const { return out_.get(); }

  void all_to_all(const std::byte* from, std::byte* to, std::size_t bytes) {
    for (std::size_t r = 0; r < ranks_; ++r)
      counts_[r] = static_cast<int>(bytes), offsets_[r] = static_cast<int>(r * bytes);
    MPI_Alltoallv(from, counts_.data(), offsets_.data(), MPI_BYTE, to, counts_.data(), offsets_.data(), MPI_BYTE,
                  MPI_COMM_WORLD);
  }

 private:
  std::size_t ranks_;
  Memory in_, packed_, out_;
  std::vector<int> counts_, offsets_;
};

inline Bound mpi_bound(const shardwise::AnyCommunicator& world, Against against, const Work& work) {
  const int size = world.size();
  const auto ranks = static_cast<std::size_t>(size), element = static_cast<std::size_t>(work.element_bytes);
  const auto rows = static_cast<std::size_t>(work.shape[0]), columns = static_cast<std::size_t>(work.shape[1]);
  const std::size_t all = rows * columns * element;
  const bool even = rows % ranks == 0 && columns % ranks == 0;
  const auto make = [&](std::size_t in, std::size_t packed, std::size_t out) {
    return std::make_shared<MpiBound>(size, in, packed, out);
  };
  if (even && work.transition == "S0->S1") {
    const auto b = make(all / ranks, all / ranks, all / ranks);
    const std::size_t height = rows / ranks, width = columns / ranks * element;
    return {"pack, MPI_Alltoallv", {}, [=] {
              stack_blocks(b->in(), b->packed(), height, width, ranks);
              b->all_to_all(b->packed(), b->out(), height * width);
            }};
  }
  if (even && work.transition == "S1->S0") {
    const auto b = make(all / ranks, all / ranks, all / ranks);
    const std::size_t height = rows / ranks, width = columns / ranks * element;
    return {"MPI_Alltoallv, unpack", {}, [=] {
              b->all_to_all(b->in(), b->packed(), height * width);
              unstack_blocks(b->packed(), b->out(), height, width, ranks);
            }};
  }
  if (even && work.transition == "S0->R" && against == Against::collective) {
    const auto b = make(all / ranks, 0, all);
    const int part = static_cast<int>(all / ranks);
    return {
        "MPI_Allgather", {}, [=] { MPI_Allgather(b->in(), part, MPI_BYTE, b->out(), part, MPI_BYTE, MPI_COMM_WORLD); }};
  }
  if (work.transition == "P->R" && against == Against::collective && element == sizeof(float)) {
    const auto b = make(all, 0, all);
    std::memset(b->in(), 0, all);
    const int n = static_cast<int>(rows * columns);
    return {"MPI_Allreduce", {}, [=] { MPI_Allreduce(b->in(), b->out(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }};
  }
  if (against == Against::collective) {
    std::fprintf(stderr, "bench_redistribute: MPI has no collective for %s of this type; --against exchange works\n",
                 work.transition.c_str());
    std::exit(2);
  }
  const std::size_t each = static_cast<std::size_t>(work.received_bytes) / (ranks - 1);
  const auto b = make(each * ranks, 0, each * ranks);
  return {"MPI_Alltoallv, no packing", {}, [=] { b->all_to_all(b->in(), b->out(), each); }};
}

}  // namespace bench
