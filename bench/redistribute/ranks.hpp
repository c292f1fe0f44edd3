// Ranks: where bench_redistribute runs its transitions: the threads of one process, or the processes of a launcher, or their GPUs. Each is a unit
// of its own; what is above knows no communicator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "options.hpp"
#include "run.hpp"

namespace bench {

inline constexpr const char* dtype_names[] = {"float", "double", "bfloat16", "int64"};
inline constexpr std::int64_t dtype_sizes[] = {4, 8, 2, 8};
inline constexpr std::size_t dtype_count = 4;

struct TransitionName {
  const char* name;
  double bytes;  // a rank's memory in global tensors, the most that any needs: input, output, both sides of the bound
};

class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int size() const = 0;
  // thread; nccl; for processes the network library and how they reach each other: gloo-shm, gloo-tcp, mpi-shm, mpi-net.
  virtual std::string kind() const = 0;
  // Every process of a launcher goes the same way through this program; one prints.
  virtual bool prints() const = 0;
  virtual std::int64_t agreed(std::int64_t of_rank_0) const = 0;
  virtual std::vector<TransitionName> transitions() const = 0;
  // Ranks: all. The result is rank 0's; `wrong` is the same everywhere.
  virtual Run run(std::size_t transition, std::size_t dtype, Run ask) const = 0;
};

std::unique_ptr<Ranks> threads(const Options& options);
std::unique_ptr<Ranks> processes(const Options& options);
std::unique_ptr<Ranks> gpus();  // ends the program with status 77 where there are none

// A loop of redistributes to the same placement, on one thread.
int count_same_placement(const std::string& what);

}  // namespace bench
