// DeviceCompute: the element work of operators on a device's memory, in the order of the calling thread's current stream. Operators
// state shapes, placements and gradients once and call it where the host's kernels cannot reach. And how gradients there add up.
// Layer: device.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/base/extents.hpp>
#include <shardwise/cuda/copy.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/placement/walk.hpp>
#include <shardwise/tape/tape.hpp>

namespace shardwise::detail {

// Where kernels note an index that is none, since a device cannot throw: position + 1, in memory of the host, of one of them. The
// calling thread's own; an error when it next waits for its results.
struct BadIndices {
  std::int64_t row;  // of embedding
  std::int64_t target;  // of cross_entropy
};
inline const Buffer& bad_indices() {
  thread_local const Buffer noted = [] {
    Buffer buffer = pinned_buffer(sizeof(BadIndices));
    *buffer.as<BadIndices>() = {};
    return buffer;
  }();
  return noted;
}
inline void report_bad_indices() {
  auto* const noted = bad_indices().as<volatile BadIndices>();
  const std::int64_t row = noted->row, target = noted->target;
  noted->row = 0;
  noted->target = 0;
  SHARDWISE_REQUIRE(row == 0, text("shardwise::embedding: the index at position ", row - 1,
                                   " of a tensor on the device is outside the table; its row is zero"));
  SHARDWISE_REQUIRE(target == 0,
                    text("shardwise::cross_entropy: the target in row ", target - 1,
                         " of a tensor on the device is not one of the classes, nor ignore_index; the loss is NaN"));
}

/// Made for one operator, of the buffers that it reads: the current stream works on them, so that they stay until it has. Throws `Error`
/// where one lies on another device than the calling thread's. Each function is the kernel of this name (`cuda/kernels.hpp`).
class DeviceCompute {
 public:
  template <class... Buffers>
  explicit DeviceCompute(const Buffers&... buffers) : stream_(cuda::current_stream()) {
    (use(buffers), ...);
  }

  const cuda::StreamView& stream() const { return stream_; }
  /// One more buffer that is read.
  void use(const Buffer& buffer) const { use_on(buffer, stream_); }

  // ---- copies ----
  void strided_copy(std::size_t element, int rank, const std::int64_t* extents, const void* src,
                    const std::int64_t* src_strides, void* dst, const std::int64_t* dst_strides) const {
    device::strided_copy(element, rank, extents, src, src_strides, dst, dst_strides, stream_);
  }
  /// `rows` rows of `length` elements, from rows `src_stride` apart (0: one that repeats) to rows `dst_stride` apart.
  void copy_rows(std::size_t element, const void* src, std::int64_t src_stride, void* dst, std::int64_t dst_stride,
                 std::int64_t rows, std::int64_t length) const {
    const std::int64_t extents[] = {rows, length}, from[] = {src_stride, 1}, to[] = {dst_stride, 1};
    device::strided_copy(element, 2, extents, src, from, dst, to, stream_);
  }
  void fill(DType dtype, void* out, const void* value, std::int64_t n) const {
    device::fill(dtype, out, value, n, stream_);
  }
  void cast(DType from_type, const void* from, DType to_type, void* to, std::int64_t n) const {
    device::cast(from_type, from, to_type, to, n, stream_);
  }

  // ---- products ----
  void gemm(DType dtype, bool trans_a, bool trans_b, std::int64_t batch, std::int64_t m, std::int64_t n, std::int64_t k,
            const void* a, const void* b, void* c, bool accumulate) const {
    device::gemm(dtype, trans_a, trans_b, {batch, m, n, k}, a, b, c, accumulate, stream_);
  }
  void gemm_bias(DType dtype, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const void* a,
                 const void* b, const void* bias, void* c) const {
    device::gemm_bias(dtype, trans_b, m, n, k, a, b, bias, c, stream_);
  }
  void conjugate(DType dtype, const void* x, void* y, std::int64_t n) const {
    device::conjugate(dtype, x, y, n, stream_);
  }

  // ---- elementwise ----
  void unary(DType dtype, kernels::Unary f, const void* x, void* y, std::int64_t n) const {
    device::unary(dtype, f, x, y, n, stream_);
  }
  /// `kept`: of x and y the one that the derivative reads.
  void unary_backward(DType dtype, kernels::Unary f, const void* kept, const void* dy, void* dx, std::int64_t n) const {
    device::unary_backward(dtype, f, kept, kept, dy, dx, n, stream_);
  }
  void binary(DType dtype, kernels::Binary op, const Extents& sa, const void* a, const Extents& sb, const void* b,
              const Extents& sout, void* out) const {
    device::binary(dtype, op, sa, a, sb, b, sout, out, stream_);
  }
  void binary_backward(DType dtype, kernels::Binary op, const Extents& sa, const void* a, const Extents& sb,
                       const void* b, const Extents& sout, const void* dy, void* da, void* db) const {
    device::binary_backward(dtype, op, sa, a, sb, b, sout, dy, da, db, stream_);
  }
  void binary_scalar(DType dtype, kernels::Binary op, const void* a, const void* number, void* out,
                     std::int64_t n) const {
    device::binary_scalar(dtype, op, a, number, false, out, n, stream_);
  }
  void scale(DType dtype, const void* x, double factor, void* y, std::int64_t n) const {
    device::scale(dtype, x, factor, y, n, stream_);
  }
  void dropout(DType dtype, const void* x, const float* uniform, double p, void* y, std::uint8_t* mask,
               std::int64_t n) const {
    device::dropout(dtype, x, uniform, p, y, mask, n, stream_);
  }
  void dropout_backward(DType dtype, const void* dy, const std::uint8_t* mask, double p, void* dx,
                        std::int64_t n) const {
    device::dropout_backward(dtype, dy, mask, p, dx, n, stream_);
  }

  // ---- sums and rows ----
  void sum_dim(DType dtype, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner) const {
    device::sum_dim(dtype, x, y, outer, n, inner, stream_);
  }
  void spread_dim(DType dtype, const void* dy, void* dx, std::int64_t outer, std::int64_t n, std::int64_t inner,
                  double factor) const {
    device::spread_dim(dtype, dy, dx, outer, n, inner, factor, stream_);
  }
  void softmax(DType dtype, bool log, const void* x, void* y, std::int64_t outer, std::int64_t n,
               std::int64_t inner) const {
    device::softmax(dtype, log, x, y, outer, n, inner, stream_);
  }
  void softmax_backward(DType dtype, bool log, const void* y, const void* dy, void* dx, std::int64_t outer,
                        std::int64_t n, std::int64_t inner) const {
    device::softmax_backward(dtype, log, y, dy, dx, outer, n, inner, stream_);
  }
  void norm(DType dtype, const void* x, const void* weight, const void* bias, double eps, std::int64_t rows,
            std::int64_t width, void* y, void* mean, void* rstd) const {
    device::norm(dtype, x, weight, bias, eps, rows, width, y, mean, rstd, stream_);
  }
  void norm_backward(DType dtype, const void* x, const void* weight, const void* dy, const void* mean, const void* rstd,
                     std::int64_t rows, std::int64_t width, void* dx, void* dweight, void* dbias) const {
    device::norm_backward(dtype, x, weight, dy, mean, rstd, rows, width, dx, dweight, dbias, stream_);
  }

  // ---- losses: arguments as the host's, a kernels::CrossEntropyArguments<T> ----
  template <class Arguments>
  void cross_entropy(DType dtype, const Arguments& in, void* loss, void* saved, double* sums) const {
    device::cross_entropy(dtype, loss_of(in), loss, saved, sums, &noted()->target, stream_);
  }
  template <class Arguments>
  void cross_entropy_backward(DType dtype, const Arguments& in, const void* saved, const void* row_scale,
                              const void* scale, void* dlogits) const {
    device::cross_entropy_backward(dtype, loss_of(in), saved, row_scale, scale, dlogits, stream_);
  }
  void kept_weight(DType dtype, const std::int64_t* target, std::int64_t n, std::int64_t classes, const void* weight,
                   std::int64_t ignore_index, double* sum) const {
    device::kept_weight(dtype, target, n, classes, weight, ignore_index, sum, stream_);
  }
  void reduced_loss(DType dtype, const double* loss, const double* weight, void* out) const {
    device::reduced_loss(dtype, loss, weight, out, stream_);
  }
  void loss_scale(DType dtype, const void* gradient, const double* weight, void* out) const {
    device::loss_scale(dtype, gradient, weight, out, stream_);
  }

  // ---- tables and random numbers ----
  void embedding(DType dtype, const void* table, std::int64_t first, std::int64_t count, std::int64_t vocabulary,
                 std::int64_t width, const std::int64_t* index, std::int64_t n, void* out) const {
    device::embedding(dtype, table, first, count, vocabulary, width, index, n, out, &noted()->row, stream_);
  }
  void embedding_backward(DType dtype, const void* dy, const std::int64_t* index, std::int64_t n, std::int64_t first,
                          std::int64_t count, std::int64_t width, void* dtable) const {
    device::embedding_backward(dtype, dy, index, n, first, count, width, dtable, stream_);
  }
  /// `where`: the elements in the global tensor, and in `out`.
  void fill_uniform(DType dtype, const Buffer& out, std::uint64_t seed, std::uint64_t draw, const Walk& where,
                    double low, double high) const {
    device::fill_uniform(dtype, first_of(dtype, out, where), seed, draw, rows_of(where), low, high, stream_);
  }
  void fill_normal(DType dtype, const Buffer& out, std::uint64_t seed, std::uint64_t draw, const Walk& where,
                   double mean, double deviation) const {
    device::fill_normal(dtype, first_of(dtype, out, where), seed, draw, rows_of(where), mean, deviation, stream_);
  }

 private:
  static void* first_of(DType dtype, const Buffer& out, const Walk& where) {
    return out.data() + where.start_b * static_cast<std::int64_t>(size_of(dtype));
  }
  static device::RandomRows rows_of(const Walk& where) {
    device::RandomRows rows{.first = where.start_a, .length = where.extent[where.rank - 1], .rank = where.rank - 1};
    for (int d = 0; d < rows.rank; ++d) {
      rows.extents[d] = where.extent[d];
      rows.index_strides[d] = where.stride_a[d];
      rows.out_strides[d] = where.stride_b[d];
    }
    return rows;
  }
  BadIndices* noted() const {
    record_pinned(bad_indices(), stream_);
    return bad_indices().as<BadIndices>();
  }
  template <class Arguments>
  static device::CrossEntropy loss_of(const Arguments& in) {
    return {in.outer, in.classes, in.inner, in.logits, in.target, in.weight, in.ignore_index, in.label_smoothing};
  }

  cuda::StreamView stream_;
};

// Gradients on a device, in the order of the current stream.
inline Buffer device_gradient(std::size_t bytes) { return device_buffer(bytes, cuda::current_stream()); }
inline void zero_device_gradient(const Buffer& x, std::size_t bytes) {
  const DeviceCompute compute(x);
  zero_device_memory(x.data(), bytes, compute.stream());
}
inline void copy_device_gradient(const Buffer& to, const Buffer& from, std::size_t bytes) {
  copy_on_device(to, from, bytes, cuda::current_stream());
}
inline void add_device_gradient(DType dtype, const Buffer& into, const Buffer& from, std::int64_t n) {
  const DeviceCompute compute(into, from);
  device::add_to(dtype, into.data(), from.data(), n, compute.stream());
}
inline void descend_on_device(DType dtype, const Buffer& x, const Buffer& gradient, const Buffer& momentum,
                              std::int64_t n, const SgdStep& step) {
  const DeviceCompute compute(x, gradient, momentum);
  device::descend(dtype, x.data(), gradient.data(), momentum.data(), n, step, compute.stream());
}
inline constexpr GradMemory device_gradients{&device_gradient, &zero_device_gradient, &copy_device_gradient,
                                             &add_device_gradient, &descend_on_device};

}  // namespace shardwise::detail
