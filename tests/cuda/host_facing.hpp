// HostFacing: a NcclCommunicator as the tests of all communicators call it, with memory of the host.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/cuda/copy.hpp>

namespace test {

// A communicator for spans of the host: each goes to the device, what came comes back. All on one stream, without a wait in between.
class HostFacing {
 public:
  static constexpr shardwise::MemorySpace memory_space = shardwise::MemorySpace::host;
  explicit HostFacing(shardwise::NcclCommunicator c) : comm_(std::move(c)) {}

  int rank() const { return comm_.rank(); }
  int size() const { return comm_.size(); }
  std::uint64_t id() const { return comm_.id(); }
  shardwise::Name axis() const { return comm_.axis(); }
  HostFacing with_axis(shardwise::Name axis) const { return HostFacing(comm_.with_axis(axis)); }
  std::chrono::milliseconds deadline() const { return comm_.deadline(); }
  HostFacing with_deadline(std::chrono::milliseconds d) const { return HostFacing(comm_.with_deadline(d)); }

  template <class T>
  void all_gather(std::span<const T> in, std::span<T> out) const {
    const There<T> a(in), b(out);
    comm_.all_gather<T>(a, b);
    b.back(out, comm_);
  }
  template <class T>
  void all_gather_v(std::span<const T> in, std::span<T> out, std::span<const std::int64_t> counts) const {
    const There<T> a(in), b(out);
    comm_.all_gather_v<T>(a, b, counts);
    b.back(out, comm_);
  }
  template <class T>
  void all_reduce(std::span<const T> in, std::span<T> out, shardwise::ReduceOp op) const {
    const There<T> a(in), b(out);
    comm_.all_reduce<T>(a, b, op);
    b.back(out, comm_);
  }
  template <class T>
  void reduce_scatter(std::span<const T> in, std::span<T> out, shardwise::ReduceOp op) const {
    const There<T> a(in), b(out);
    comm_.reduce_scatter<T>(a, b, op);
    b.back(out, comm_);
  }
  template <class T>
  void reduce_scatter_v(std::span<const T> in, std::span<T> out, std::span<const std::int64_t> counts,
                        shardwise::ReduceOp op) const {
    const There<T> a(in), b(out);
    comm_.reduce_scatter_v<T>(a, b, counts, op);
    b.back(out, comm_);
  }
  template <class T>
  void all_to_all_v(std::span<const T> in, std::span<const std::int64_t> sends, std::span<T> out,
                    std::span<const std::int64_t> receives) const {
    const There<T> a(in), b(out);
    comm_.all_to_all_v<T>(a, sends, b, receives);
    b.back(out, comm_);
  }
  template <class T>
  void broadcast(std::span<T> data, int root) const {
    const There<T> a(data);
    comm_.broadcast<T>(a, root);
    a.back(data, comm_);
  }
  template <class T>
  void scatter(std::span<const T> in, std::span<T> out, int root) const {
    const There<T> a(in), b(out);
    comm_.scatter<T>(a, b, root);
    b.back(out, comm_);
  }
  template <class T>
  void scatter_v(std::span<const T> in, std::span<const std::int64_t> counts, std::span<T> out, int root) const {
    const There<T> a(in), b(out);
    comm_.scatter_v<T>(a, counts, b, root);
    b.back(out, comm_);
  }
  template <class T>
  void send(std::span<const T> data, int dest) const {
    const There<T> a(data);
    comm_.send<T>(a, dest);
  }
  template <class T>
  void recv(std::span<T> data, int source) const {
    const There<T> a(data);
    comm_.recv<T>(a, source);
    a.back(data, comm_);
  }
  void barrier() const { comm_.barrier(); }
  std::optional<HostFacing> split(int color, int key) const {
    auto part = comm_.split(color, key);
    if (!part) return std::nullopt;
    return HostFacing(*part);
  }
  void abort(const std::string& reason) const { comm_.abort(reason); }

 private:
  template <class T>
  class There {
   public:
    template <class U>
    explicit There(std::span<U> s)
        : size_(s.size()),
          buffer_(shardwise::detail::device_buffer(s.size_bytes(), shardwise::cuda::current_stream())) {
      shardwise::detail::copy_to_device(buffer_,
                                        shardwise::detail::Buffer::view(const_cast<std::remove_const_t<U>*>(s.data())),
                                        s.size_bytes(), shardwise::cuda::current_stream());
    }
    operator std::span<const T>() const { return {buffer_.as<T>(), size_}; }  // NOLINT
    operator std::span<T>() const { return {buffer_.as<T>(), size_}; }  // NOLINT
    void back(std::span<T> to, const shardwise::NcclCommunicator& comm) const {
      shardwise::detail::copy_to_host(shardwise::detail::Buffer::view(to.data()), buffer_, to.size_bytes(),
                                      shardwise::cuda::current_stream());
      comm.synchronize();
    }

   private:
    std::size_t size_;
    shardwise::detail::Buffer buffer_;
  };

  shardwise::NcclCommunicator comm_;
};

}  // namespace test
