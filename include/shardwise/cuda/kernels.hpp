// The kernels of a device as plain functions over element types, pointers and sizes, in the order of a stream. They are compiled once,
// in the library of the component cuda: no nvcc is needed to call them. The same operations as ops/kernels/ has for the host, with the
// same meaning; all pointers are to memory of the stream's device, and nothing waits. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/scalar_functions.hpp>
#include <shardwise/base/sgd_step.hpp>
#include <shardwise/cuda/stream.hpp>

namespace shardwise::detail::device {

using cuda::StreamView;
using kernels::Binary;
using kernels::Unary;

// ---- copies ---------------------------------------------------------------------------------------------------------------------

/// dst[sum i_d dst_strides[d]] = src[sum i_d src_strides[d]] over the box of `extents`, for elements of `element` bytes. Strides count
/// elements and are not negative; a source stride of 0 repeats. The memory may not overlap.
void strided_copy(std::size_t element, int rank, const std::int64_t* extents, const void* src,
                  const std::int64_t* src_strides, void* dst, const std::int64_t* dst_strides,
                  const StreamView& stream);
/// out[i] = *value, which is read from the host at once.
void fill(DType dtype, void* out, const void* value, std::int64_t n, const StreamView& stream);
/// to[i] = from[i] in another type: 16-bit types by way of float, to integers towards zero, of a complex number the real part.
void cast(DType from_type, const void* from, DType to_type, void* to, std::int64_t n, const StreamView& stream);

// ---- reductions of buffers ------------------------------------------------------------------------------------------------------

/// out[i] = terms[0][i] op terms[1][i] op ..., in this order: the bits of the host's reduce_terms. `terms` is a list on the host. `out`
/// may be one of the terms. Throws `Error` for a count outside 1 to 64 and for the maximum or minimum of complex numbers.
void reduce_terms(DType dtype, void* out, const void* const* terms, int count, std::int64_t n, ReduceOp op,
                  const StreamView& stream);

// ---- products -------------------------------------------------------------------------------------------------------------------

struct GemmSizes {
  std::int64_t batch;
  std::int64_t m;
  std::int64_t n;
  std::int64_t k;
};
/// For each of a batch, one behind the other: c (m, n) (+)= op(a) op(b), where a is stored (k, m) if trans_a, b (n, k) if trans_b. Any
/// element type; 16-bit ones are added up in float. cuBLAS, so that the order of the sums is the device's own.
void gemm(DType dtype, bool trans_a, bool trans_b, const GemmSizes& sizes, const void* a, const void* b, void* c,
          bool accumulate, const StreamView& stream);
/// c (m, n) = a op(b) + bias (n) in each row: product and bias in one pass over c by cuBLASLt where it can (real types), else the bias
/// is laid into c first. 16-bit types are rounded once, at the end.
void gemm_bias(DType dtype, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k, const void* a, const void* b,
               const void* bias, void* c, const StreamView& stream);

// ---- boxes of tensors, as ranks exchange them -------------------------------------------------------------------------------------

/// A box seen in two row-major tensors: `rank` dimensions, the last one contiguous in both; strides count elements.
struct BoxCopy {
  int rank;
  std::int64_t extents[max_rank + 1];
  std::int64_t src_strides[max_rank + 1];
  std::int64_t dst_strides[max_rank + 1];
  const void* src;  // its first element
  void* dst;
};
/// All of them, by as few kernels as take their descriptions (16 a kernel). No destination may overlap anything.
void copy_boxes(std::size_t element, const BoxCopy* boxes, int count, const StreamView& stream);

/// What two tensors share where no box tells: element (i_0, i_1, ...) lies at the sum of src_offsets[d][i_d], and goes to that of
/// dst_offsets[d][i_d]; lists of elements on the device. Null lists: one element after the other.
struct ListedCopy {
  int rank;
  std::int64_t extents[max_rank];
  const std::int64_t* src_offsets[max_rank];
  const std::int64_t* dst_offsets[max_rank];
  const void* src;
  void* dst;
};
void copy_listed(std::size_t element, const ListedCopy& copy, const StreamView& stream);

/// dst = (terms[0] op terms[1] op ...) / divisor over the box, in this order. The terms lie one element after the other, but for number
/// `own` (-1: none; below 64), which lies as `src` and its strides say. An average is a sum with a divisor. dst may be the own term.
/// Beyond 64 terms 16-bit types are rounded after every 63. Throws `Error` for the maximum or minimum of complex numbers.
void reduce_box(DType dtype, const BoxCopy& box, const void* const* terms, int count, int own, ReduceOp op, int divisor,
                const StreamView& stream);

/// y[i] = the conjugate of x[i]; complex types. y may be x.
void conjugate(DType dtype, const void* x, void* y, std::int64_t n, const StreamView& stream);

// ---- elementwise ----------------------------------------------------------------------------------------------------------------

/// y = f(x). All but `neg` need a real element type. y may be x.
void unary(DType dtype, Unary f, const void* x, void* y, std::int64_t n, const StreamView& stream);
/// dx = f'(x) dy; of x and y the one that unary_backward_reads_output says. dx may be dy.
void unary_backward(DType dtype, Unary f, const void* x, const void* y, const void* dy, void* dx, std::int64_t n,
                    const StreamView& stream);
/// out = a op b, where `sout == broadcast_extents(sa, sb)`. No quotients of integers.
void binary(DType dtype, Binary op, const Extents& sa, const void* a, const Extents& sb, const void* b,
            const Extents& sout, void* out, const StreamView& stream);
/// Gradients of `out = a op b`, written; null where not wanted. `add` and `sub` read neither a nor b.
void binary_backward(DType dtype, Binary op, const Extents& sa, const void* a, const Extents& sb, const void* b,
                     const Extents& sout, const void* dy, void* da, void* db, const StreamView& stream);
/// out[i] = a[i] op *number, or *number op a[i] where `reversed`; the number is read from the host at once.
void binary_scalar(DType dtype, Binary op, const void* a, const void* number, bool reversed, void* out, std::int64_t n,
                   const StreamView& stream);
/// y[i] = x[i] factor. y may be x.
void scale(DType dtype, const void* x, double factor, void* y, std::int64_t n, const StreamView& stream);
/// y += x.
void add_to(DType dtype, void* y, const void* x, std::int64_t n, const StreamView& stream);
/// y = x / (1 - p) where uniform[i] >= p, else 0; mask says which. y may be x.
void dropout(DType dtype, const void* x, const float* uniform, double p, void* y, std::uint8_t* mask, std::int64_t n,
             const StreamView& stream);
void dropout_backward(DType dtype, const void* dy, const std::uint8_t* mask, double p, void* dx, std::int64_t n,
                      const StreamView& stream);

/// One step of gradient descent: x and its momentum, which may be null, are written.
void descend(DType dtype, void* x, const void* gradient, void* momentum, std::int64_t n, const SgdStep& step,
             const StreamView& stream);

// ---- sums -----------------------------------------------------------------------------------------------------------------------

/// x (outer, n, inner) -> y (outer, inner). The same input gives the same bits every time.
void sum_dim(DType dtype, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
             const StreamView& stream);
/// dx (outer, n, inner) = factor dy (outer, inner).
void spread_dim(DType dtype, const void* dy, void* dx, std::int64_t outer, std::int64_t n, std::int64_t inner,
                double factor, const StreamView& stream);
/// Sums g of shape `sout` to `out` of shape `sa`, which was broadcast to `sout`.
void reduce_to(DType dtype, const Extents& sout, const void* g, const Extents& sa, void* out, const StreamView& stream);

// ---- rows -----------------------------------------------------------------------------------------------------------------------

/// Over the middle dimension of (outer, n, inner). y may be x, dx may be dy. Real types.
void softmax(DType dtype, bool log, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
             const StreamView& stream);
void softmax_backward(DType dtype, bool log, const void* y, const void* dy, void* dx, std::int64_t outer,
                      std::int64_t n, std::int64_t inner, const StreamView& stream);
/// mean and rstd (rows) are of the accumulator's type, weight and bias (width) may be null. `mean` null: rms_norm, without a bias.
void norm(DType dtype, const void* x, const void* weight, const void* bias, double eps, std::int64_t rows,
          std::int64_t width, void* y, void* mean, void* rstd, const StreamView& stream);
/// Gradients, written; null where not wanted. dx may not be dy.
void norm_backward(DType dtype, const void* x, const void* weight, const void* dy, const void* mean, const void* rstd,
                   std::int64_t rows, std::int64_t width, void* dx, void* dweight, void* dbias,
                   const StreamView& stream);

struct CrossEntropy {
  std::int64_t outer;
  std::int64_t classes;
  std::int64_t inner;
  const void* logits;  // (outer, classes, inner)
  const std::int64_t* target;  // (outer, inner)
  const void* weight = nullptr;
  std::int64_t ignore_index = -100;
  double label_smoothing = 0;
};
/// The loss of each row (outer, inner) or null; `saved` (outer, inner, 2) of the accumulator's type or null; `sums`: the loss and the
/// weight of all rows, two doubles, or null. A device cannot throw: a row whose target is no class has the loss NaN, and `invalid`, where
/// it is not null, becomes the row's number + 1 (of one of them).
void cross_entropy(DType dtype, const CrossEntropy& in, void* loss, void* saved, double* sums, std::int64_t* invalid,
                   const StreamView& stream);
/// dlogits = *scale row_scale[row] d loss[row] / d logits, `scale` one number of the accumulator's type on the device, `row_scale`
/// (outer, inner) or null for ones.
void cross_entropy_backward(DType dtype, const CrossEntropy& in, const void* saved, const void* row_scale,
                            const void* scale, void* dlogits, const StreamView& stream);

/// *sum = the weights of the targets (n) that are not ignore_index, NaN where one is no class; `weight` (classes), or null: all ones.
void kept_weight(DType dtype, const std::int64_t* target, std::int64_t n, std::int64_t classes, const void* weight,
                 std::int64_t ignore_index, double* sum, const StreamView& stream);
/// *out = *loss or, where `weight` is not null, *loss / *weight: of an element type.
void reduced_loss(DType dtype, const double* loss, const double* weight, void* out, const StreamView& stream);
/// *out = *gradient or, where `weight` is not null, *gradient / *weight: of the accumulator's type, the `scale` of a backward pass.
void loss_scale(DType dtype, const void* gradient, const double* weight, void* out, const StreamView& stream);

// ---- tables ---------------------------------------------------------------------------------------------------------------------

/// out[i] = table[index[i] - first], zeros where the row is not one of [first, first + count). An index outside [0, vocabulary) gives
/// zeros and is noted in `invalid`, where it is not null, as position + 1 (of one of them).
void embedding(DType dtype, const void* table, std::int64_t first, std::int64_t count, std::int64_t vocabulary,
               std::int64_t width, const std::int64_t* index, std::int64_t n, void* out, std::int64_t* invalid,
               const StreamView& stream);
/// dtable (count, width), written: the sum of dy (n, width) over the positions that looked a row up. Its last bits may differ from run
/// to run where rows occur several times.
void embedding_backward(DType dtype, const void* dy, const std::int64_t* index, std::int64_t n, std::int64_t first,
                        std::int64_t count, std::int64_t width, void* dtable, const StreamView& stream);

// ---- random numbers -------------------------------------------------------------------------------------------------------------

/// Which elements of a global tensor are drawn: rows of `length`, the first one from the global index `first` on. Row (i_0, i_1, ...)
/// begins sum i_d index_strides[d] behind it, and goes to sum i_d out_strides[d]. Rank 0: one row.
struct RandomRows {
  std::int64_t first = 0;
  std::int64_t length = 0;
  int rank = 0;
  std::int64_t extents[max_rank] = {};
  std::int64_t index_strides[max_rank] = {};
  std::int64_t out_strides[max_rank] = {};
};
/// Each element = low + (high - low) uniform_at(seed, draw, its global index): the bits of the host.
void fill_uniform(DType dtype, void* out, std::uint64_t seed, std::uint64_t draw, const RandomRows& rows, double low,
                  double high, const StreamView& stream);
/// Each element = mean + deviation normal_at(seed, draw, its global index), up to the rounding of the device's logarithm, sine and cosine.
void fill_normal(DType dtype, void* out, std::uint64_t seed, std::uint64_t draw, const RandomRows& rows, double mean,
                 double deviation, const StreamView& stream);

}  // namespace shardwise::detail::device
