// Groups of the simulated NCCL: what their ranks bring to a meeting, and what NCCL wants of it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include <nccl.h>

#include "simulated_cuda/state.hpp"

namespace simulated_cuda {

enum class Kind { all_gather, all_reduce, reduce_scatter, broadcast };

struct Part {  // of one rank in a collective
  Kind kind;
  const void* in;
  void* out;
  std::size_t count;
  ncclDataType_t type;
  int extra;  // operation or root
  bool alike(const Part& o) const { return kind == o.kind && count == o.count && type == o.type && extra == o.extra; }
};

struct Meeting {
  std::vector<Part> parts;
  int arrived = 0;
  bool done = false;
};

struct Message {
  const void* data;
  std::size_t bytes;
  bool done = false;
};

struct Group {
  explicit Group(int ranks)
      : size(ranks), devices(static_cast<std::size_t>(ranks), -1), async(static_cast<std::size_t>(ranks), ncclSuccess) {
  }
  int size;
  std::vector<int> devices;  // of the ranks
  std::mutex mutex;
  std::condition_variable changed;
  int joined = 0;
  bool aborted = false;
  std::map<std::uint64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> mail;  // by source and destination
  struct Choice {
    int color, key;
  };
  std::map<std::uint64_t, std::map<int, Choice>> splits;  // by number of the split, then by rank
  std::map<std::tuple<std::uint64_t, int>, std::shared_ptr<Group>> made;
  std::vector<ncclResult_t> async;
};

// What a rank hands over: memory of its own device, which the kernels of all others reach (NCCL goes between ranks of one process by
// direct pointers), and a stream of this device. A device does not say so: it stops with an illegal address, or hangs.
struct Range {
  const void* begin;
  std::size_t bytes;
};
inline ncclResult_t refused(Group& group, int rank, cudaStream_t stream, const std::vector<Range>& ranges) {
  const int device = group.devices[static_cast<std::size_t>(rank)];
  if (stream == nullptr || stream_of(stream)->device() != device) return ncclInvalidUsage;
  Machine& machine = Machine::get();
  for (const Range& range : ranges) {
    if (!machine.memory(device).holds(range.begin, range.bytes)) return ncclInvalidArgument;
    for (const int other : group.devices)
      if (!machine.reaches(other, device)) return ncclUnhandledCudaError;
  }
  return ncclSuccess;
}
// Input and output of a collective are apart, or one is where the other's part of this rank is.
inline bool apart(const Range& a, const Range& b) {
  const auto* const x = static_cast<const std::byte*>(a.begin);
  const auto* const y = static_cast<const std::byte*>(b.begin);
  return x + a.bytes <= y || y + b.bytes <= x;
}

}  // namespace simulated_cuda
