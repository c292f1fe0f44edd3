// What NCCL itself does with the bytes of a move: its own collective, and a copy on the device for each pass over the elements that the
// layout forces on anybody, which reads and writes as much as a kernel that packs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/cuda/copy.hpp>

#include "run.hpp"

namespace bench {

// `bytes` bytes of the host, the same on all ranks afterwards: rank 0's.
inline void tell_all(const shardwise::NcclCommunicator& world, void* data, std::size_t bytes) {
  namespace detail = shardwise::detail;
  const auto stream = shardwise::cuda::current_stream();
  const detail::Buffer there = detail::device_buffer(bytes, stream), here = detail::Buffer::view(data);
  detail::copy_to_device(there, here, bytes, stream);
  world.broadcast<std::uint8_t>({there.as<std::uint8_t>(), bytes}, 0);
  detail::copy_to_host(here, there, bytes, stream);
  world.synchronize();
}

// A communicator of NCCL with nothing around it, between the same ranks.
class RawNccl {
 public:
  explicit RawNccl(const shardwise::NcclCommunicator& world) : ranks_(world.size()), rank_(world.rank()) {
    ncclUniqueId id{};
    if (rank_ == 0) id = shardwise::nccl_unique_id();
    tell_all(world, id.internal, sizeof id.internal);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t state = ncclCommInitRankConfig(&comm_, ranks_, id, rank_, &config);
    while (state == ncclInProgress) {
      std::this_thread::yield();
      check(ncclCommGetAsyncError(comm_, &state));
    }
    check(state);
  }
  RawNccl(const RawNccl&) = delete;
  RawNccl& operator=(const RawNccl&) = delete;
  ~RawNccl() { static_cast<void>(ncclCommDestroy(comm_)); }

  // `type` and numbers of elements as NCCL has them.
  void all_gather(const void* in, void* out, std::size_t each, ncclDataType_t type) const {
    check(ncclAllGather(in, out, each, type, comm_, stream()));
  }
  void all_reduce(const void* in, void* out, std::size_t n, ncclDataType_t type) const {
    check(ncclAllReduce(in, out, n, type, ncclSum, comm_, stream()));
  }
  void reduce_scatter(const void* in, void* out, std::size_t each, ncclDataType_t type) const {
    check(ncclReduceScatter(in, out, each, type, ncclSum, comm_, stream()));
  }
  void all_to_all(const std::byte* in, std::byte* out, std::size_t each, ncclDataType_t type, std::size_t width) const {
    const std::size_t bytes = each * width;
    check(ncclGroupStart());
    for (int r = 0; r < ranks_; ++r) {
      const std::size_t at = static_cast<std::size_t>(r) * bytes;
      if (r == rank_) continue;
      check(ncclSend(in + at, each, type, r, comm_, stream()));
      check(ncclRecv(out + at, each, type, r, comm_, stream()));
    }
    check(ncclGroupEnd());
    const std::size_t at = static_cast<std::size_t>(rank_) * bytes;
    copy(in + at, out + at, bytes);
  }
  static void copy(const void* in, void* out, std::size_t bytes) {
    SHARDWISE_CUDA(cudaMemcpyAsync(out, in, bytes, cudaMemcpyDeviceToDevice, stream()));
  }

 private:
  static cudaStream_t stream() { return shardwise::cuda::current_stream().handle; }
  static void check(ncclResult_t result) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    std::fprintf(stderr, "bench_redistribute: NCCL: %s\n", ncclGetErrorString(result));
    std::exit(1);
  }

  int ranks_;
  int rank_;
  ncclComm_t comm_ = nullptr;
};

inline Bound nccl_bound(const std::shared_ptr<const RawNccl>& nccl, int ranks, const Work& work) {
  const auto elements = static_cast<std::size_t>(work.shape[0] * work.shape[1]),
             width = static_cast<std::size_t>(work.element_bytes);
  const std::size_t n = static_cast<std::size_t>(ranks), local = (elements + n - 1) / n, piece = (local + n - 1) / n;
  const ncclDataType_t type = width == 4 ? ncclFloat32 : ncclFloat64;
  struct Parts {
    shardwise::detail::Buffer in, packed, out;
  };
  const std::size_t most = piece * n * n * width;
  const auto made = [&] { return shardwise::detail::device_buffer(most, shardwise::cuda::current_stream()); };
  const auto m = std::make_shared<Parts>(Parts{made(), made(), made()});
  const auto bound = [&](const char* name, auto body) { return Bound{name, "", [=] { body(*nccl, *m); }}; };
  const std::string& t = work.transition;
  if (t == "S0->R")
    return bound("all-gather",
                 [=](const RawNccl& c, const Parts& b) { c.all_gather(b.in.data(), b.out.data(), local, type); });
  if (t == "S1->R")
    return bound("all-gather and a pass", [=](const RawNccl& c, const Parts& b) {
      c.all_gather(b.in.data(), b.packed.data(), local, type);
      c.copy(b.packed.data(), b.out.data(), elements * width);
    });
  if (t == "P->R" || t == "all_reduce")
    return bound("all-reduce",
                 [=](const RawNccl& c, const Parts& b) { c.all_reduce(b.in.data(), b.out.data(), elements, type); });
  if (t == "P->S0")
    return bound("reduce-scatter",
                 [=](const RawNccl& c, const Parts& b) { c.reduce_scatter(b.in.data(), b.out.data(), local, type); });
  if (t == "P->S1")
    return bound("a pass and reduce-scatter", [=](const RawNccl& c, const Parts& b) {
      c.copy(b.in.data(), b.packed.data(), elements * width);
      c.reduce_scatter(b.packed.data(), b.out.data(), local, type);
    });
  if (t == "S0->S1")
    return bound("a pass and all-to-all", [=](const RawNccl& c, const Parts& b) {
      c.copy(b.in.data(), b.packed.data(), local * width);
      c.all_to_all(b.packed.data(), b.out.data(), piece, type, width);
    });
  return bound("all-to-all and a pass", [=](const RawNccl& c, const Parts& b) {  // S1->S0
    c.all_to_all(b.in.data(), b.packed.data(), piece, type, width);
    c.copy(b.packed.data(), b.out.data(), local * width);
  });
}

}  // namespace bench
