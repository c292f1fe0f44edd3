// Kernels that add up: sums over a dimension, back to the shape of an operand; gradients of a table.
#include <utility>

#include <shardwise/base/broadcast.hpp>
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/sums.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>

#include "sum_passes.hpp"

namespace shardwise::detail::device {

namespace {

template <class T>
using SumOf = kernels::SumAccumulator<T>;

}  // namespace

void sum_dim(DType dtype, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
             const StreamView& stream) {
  visit_dtype(dtype, [&]<class T>(T) {
    sum_loaded<T, SumOf<T>>(SumLoad<T, SumOf<T>>{static_cast<const T*>(x), nullptr}, y, outer, n, inner, stream);
  });
}

void spread_dim(DType dtype, const void* dy, void* dx, std::int64_t outer, std::int64_t n, std::int64_t inner,
                double factor, const StreamView& stream) {
  if (n * inner == 0) return;
  visit_some<TakesField>("the gradient of a sum", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    A number;
    if constexpr (is_complex<T>)
      number = A(static_cast<decltype(number.real)>(factor), 0);
    else
      number = static_cast<A>(factor);
    launch(SpreadBody<T>{static_cast<const T*>(dy), static_cast<T*>(dx), number, Divider(inner), Divider(n * inner)},
           outer * n * inner, stream);
  });
}

void reduce_to(DType dtype, const Extents& sout, const void* g, const Extents& sa, void* out,
               const StreamView& stream) {
  const kernels::SumRuns runs(sout, sa);
  int left = runs.repeated_runs;
  const std::size_t element = size_of(dtype);
  if (left == 0) {
    if (sout.elements() > 0 && g != out)
      SHARDWISE_CUDA(cudaMemcpyAsync(out, g, static_cast<std::size_t>(sout.elements()) * element,
                                     cudaMemcpyDeviceToDevice, stream.handle));
    return;
  }
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < runs.count; ++i) outer *= runs.size[i];
  if (outer == 0) {
    zero_device_memory(out, static_cast<std::size_t>(sa.elements()) * element, stream);  // all bits zero in every type
    return;
  }
  Buffer held;
  for (int i = 0; i < runs.count; ++i) {
    outer /= runs.size[i];
    if (!runs.repeated[i]) {
      inner *= runs.size[i];
      continue;
    }
    if (--left == 0) return sum_dim(dtype, g, out, outer, runs.size[i], inner, stream);
    Buffer next = device_buffer(static_cast<std::size_t>(outer * inner) * element, stream);
    sum_dim(dtype, g, next.data(), outer, runs.size[i], inner, stream);
    held = std::move(next);
    g = held.data();
  }
}

void embedding_backward(DType dtype, const void* dy, const std::int64_t* index, std::int64_t n, std::int64_t first,
                        std::int64_t count, std::int64_t width, void* dtable, const StreamView& stream) {
  // Complex numbers are rows of twice as many real ones.
  if (dtype == DType::complex64)
    return embedding_backward(DType::float32, dy, index, n, first, count, 2 * width, dtable, stream);
  if (dtype == DType::complex128)
    return embedding_backward(DType::float64, dy, index, n, first, count, 2 * width, dtable, stream);
  const std::int64_t size = count * width;
  if (size == 0) return;
  visit_some<TakesReal>("the gradient of a table", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    constexpr bool same = std::is_same_v<T, A>;  // else a row that occurs often would stop growing in 16 bits
    const Buffer sums = same ? Buffer() : device_buffer(static_cast<std::size_t>(size) * sizeof(A), stream);
    A* const into = same ? static_cast<A*>(dtable) : sums.as<A>();
    zero_device_memory(into, static_cast<std::size_t>(size) * sizeof(A), stream);
    launch(ScatterAddBody<T>{static_cast<const T*>(dy), index, into, first, count, Divider(width)}, n * width, stream);
    if constexpr (!same) cast(dtype_of<A>, into, dtype, dtable, size, stream);
  });
}

}  // namespace shardwise::detail::device
