// Cuda, the memory space of tensors on a device, and the way there and back. What would read their elements on the host does not
// compile. Layer: device.
#pragma once

#include <cstddef>
#include <cstring>

#include <shardwise/cuda/copy.hpp>
#include <shardwise/device/compute.hpp>
#include <shardwise/tensor/factories.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

/// Memory of a CUDA device: `Tensor<float, 2, Cuda> x({3, 4})` has its elements on the calling thread's current device, set to zero in
/// the order of its current stream. What works on them works in this order too; another stream waits for it first
/// (`cuda::StreamView::wait`) and is told to `record_stream`.
struct Cuda {
  static constexpr MemorySpace value = MemorySpace::cuda;

  // What an operator's elements are computed with, and how gradients add up.
  using Compute = detail::DeviceCompute;
  static constexpr detail::GradMemory gradients = detail::device_gradients;

  // On the current device, in the order of its current stream.
  static detail::Buffer allocated(std::size_t bytes) { return detail::device_buffer(bytes, cuda::current_stream()); }
  static detail::Buffer zeroed(std::size_t bytes) {
    detail::Buffer buffer = allocated(bytes);
    detail::zero_device_memory(buffer.data(), bytes, cuda::current_stream());
    return buffer;
  }
  static void copy(const detail::Buffer& to, const detail::Buffer& from, std::size_t bytes) {
    detail::copy_on_device(to, from, bytes, cuda::current_stream());
  }
};

namespace detail {

// A tensor with the sizes of x and other elements.
template <class Y, class X>
Y with_elements(const X& x, const Buffer& buffer) {
  return Y(share_impl(buffer, x.impl()->global, x.impl()->local), typename Y::MeshState{});
}

}  // namespace detail

/// A copy of x on the calling thread's device, in the order of its current stream. The host waits until x was read, unless x lies in
/// pinned memory (`pin_memory`): then it waits for nothing. Cut off from the tape. PyTorch: `x.to("cuda", non_blocking=True)`.
template <Element T, std::size_t R>
Tensor<T, R, Cuda> to_device(const Tensor<T, R>& x) {
  const cuda::StreamView stream = cuda::current_stream();
  const detail::Buffer there = detail::device_buffer(x.bytes(), stream);
  detail::copy_to_device(there, x.impl()->buffer, x.bytes(), stream);
  return detail::with_elements<Tensor<T, R, Cuda>>(x, there);
}

/// A copy of x in the host's memory. Waits until everything before it on the current stream is done. Cut off from the tape. Throws
/// `Error` where an operator before it met an index of no row or a target of no class, which a device cannot refuse. PyTorch: `x.cpu()`.
template <Element T, std::size_t R>
Tensor<T, R> to_host(const Tensor<T, R, Cuda>& x) {
  const cuda::StreamView stream = cuda::current_stream();
  const detail::Buffer here(x.bytes());
  detail::copy_to_host(here, x.impl()->buffer, x.bytes(), stream);
  stream.synchronize();
  detail::report_bad_indices();
  return detail::with_elements<Tensor<T, R>>(x, here);
}

/// A copy of x in pinned memory, from which `to_device` does not hold up the host. Cut off from the tape. PyTorch: `x.pin_memory()`.
template <Element T, std::size_t R>
Tensor<T, R> pin_memory(const Tensor<T, R>& x) {
  const detail::Buffer pinned = detail::pinned_buffer(x.bytes());
  if (x.bytes() > 0) std::memcpy(pinned.data(), x.data(), x.bytes());
  return detail::with_elements<Tensor<T, R>>(x, pinned);
}

/// The elements of x are in use on `stream` too: their memory stays until that stream has come this far. PyTorch:
/// `Tensor.record_stream`.
template <Element T, std::size_t R>
void record_stream(const Tensor<T, R, Cuda>& x, const cuda::StreamView& stream) {
  detail::record_stream(x.impl()->buffer, stream);
}

namespace detail {

template <class X>
decltype(auto) on_the_host(const X& x) {
  if constexpr (on_host<typename X::layout_type>)
    return (x);
  else
    return to_host(x);
}
template <class A, class B>
concept ComparedFromDevice = !(is_host<A> && is_host<B>);

}  // namespace detail

/// As `equal` and `allclose` of tensors of the host: what lies on a device is brought there first, so that one of the two may lie on the
/// host. PyTorch: `torch.equal`, `torch.allclose`, which want both on one device.
template <Element T, std::size_t R, class A, class B>
  requires detail::ComparedFromDevice<A, B>
bool equal(const BasicTensor<T, R, Local<A>>& a, const BasicTensor<T, R, Local<B>>& b) {
  return equal(detail::on_the_host(a), detail::on_the_host(b));
}
template <Element T, std::size_t R, class A, class B>
  requires detail::ComparedFromDevice<A, B>
bool allclose(const BasicTensor<T, R, Local<A>>& a, const BasicTensor<T, R, Local<B>>& b,
              const Tolerance& tolerance = {}) {
  return allclose(detail::on_the_host(a), detail::on_the_host(b), tolerance);
}

}  // namespace shardwise
