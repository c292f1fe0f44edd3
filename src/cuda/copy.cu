// Kernels that move elements: strided copies, fills, casts, rows of a table.
#include <shardwise/cuda/bodies/copy.hpp>
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/elementwise.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>

namespace shardwise::detail::device {

namespace {

template <int Bytes>
void copy_units(const CopyPlan& plan, const void* src, void* dst, const StreamView& stream) {
  if (const int along = plan.transposed(); along != 0) {
    const TransposeBody<Bytes> body(plan, along, src, dst);
    launch_teams(body, body.tiles(), 256, stream);
  } else if (plan.rank <= 2) {
    launch(StridedCopyBody<Bytes, 2>(plan, src, dst), plan.units(), stream);
  } else if (plan.rank <= 4) {
    launch(StridedCopyBody<Bytes, 4>(plan, src, dst), plan.units(), stream);
  } else {
    launch(StridedCopyBody<Bytes, CopyPlan::most>(plan, src, dst), plan.units(), stream);
  }
}

}  // namespace

void strided_copy(std::size_t element, int rank, const std::int64_t* extents, const void* src,
                  const std::int64_t* src_strides, void* dst, const std::int64_t* dst_strides,
                  const StreamView& stream) {
  const CopyPlan plan(rank, extents, element, src, src_strides, dst, dst_strides);
  if (plan.rank < 0) return;
  if (plan.contiguous())  // the driver's own copy
    SHARDWISE_CUDA(cudaMemcpyAsync(dst, src, static_cast<std::size_t>(plan.units() * plan.unit),
                                   cudaMemcpyDeviceToDevice, stream.handle));
  else
    with_unit(plan.unit, [&](auto bytes) { copy_units<bytes>(plan, src, dst, stream); });
}

void fill(DType dtype, void* out, const void* value, std::int64_t n, const StreamView& stream) {
  with_unit(static_cast<int>(size_of(dtype)), [&](auto bytes) {
    using T = Unit<bytes>;
    T number;
    std::memcpy(&number, value, sizeof number);
    if (reinterpret_cast<std::uintptr_t>(out) % sizeof(T) == 0) {
      const FillBody<T> body(static_cast<T*>(out), n, number);
      launch(body, body.chunks(), stream);
    } else {  // a complex number at a multiple of its half
      const std::int64_t sizes[] = {n}, from[] = {0}, to[] = {1};
      const Buffer held = device_buffer(sizeof number, stream);
      SHARDWISE_CUDA(cudaMemcpyAsync(held.data(), value, sizeof number, cudaMemcpyHostToDevice, stream.handle));
      strided_copy(sizeof number, 1, sizes, held.data(), from, out, to, stream);
    }
  });
}

void cast(DType from_type, const void* from, DType to_type, void* to, std::int64_t n, const StreamView& stream) {
  visit_dtype(from_type, [&]<class T>(T) {
    const CastBody<T> body(static_cast<const T*>(from), to, to_type, n);
    launch(body, body.chunks(), stream);
  });
}

void embedding(DType dtype, const void* table, std::int64_t first, std::int64_t count, std::int64_t vocabulary,
               std::int64_t width, const std::int64_t* index, std::int64_t n, void* out, std::int64_t* invalid,
               const StreamView& stream) {
  const auto bytes = static_cast<std::int64_t>(size_of(dtype)) * width;
  if (bytes == 0) return;
  const auto bits = static_cast<std::uint64_t>(bytes) | 16u | reinterpret_cast<std::uintptr_t>(table) |
                    reinterpret_cast<std::uintptr_t>(out);
  with_unit(static_cast<int>(bits & (~bits + 1)), [&](auto unit) {
    using T = Unit<unit>;
    const LookupBody<unit> body{
        static_cast<const T*>(table), index, static_cast<T*>(out), invalid, first, count, vocabulary,
        Divider(bytes / unit)};
    launch(body, n * (bytes / unit), stream);
  });
}

}  // namespace shardwise::detail::device
