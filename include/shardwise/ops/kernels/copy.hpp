// Copies between layouts: boxes with any strides, transposes, parts of one dimension. Layer: ops.
#pragma once

#include <cstdint>
#include <cstring>

#include <shardwise/base/extents.hpp>

namespace shardwise::detail::kernels {

struct CopyDimension {
  std::int64_t size;
  std::int64_t from;
  std::int64_t to;
};

// dst is contiguous along j, src along i: square tiles, so that each line of src is used up while it is in the cache.
template <class T>
void transpose_copy(CopyDimension i, CopyDimension j, const T* src, T* dst) {
  constexpr std::int64_t tile = 32;
  for (std::int64_t i0 = 0; i0 < i.size; i0 += tile) {
    const std::int64_t i1 = i.size - i0 < tile ? i.size : i0 + tile;
    for (std::int64_t j0 = 0; j0 < j.size; j0 += tile) {
      const std::int64_t j1 = j.size - j0 < tile ? j.size : j0 + tile;
      for (std::int64_t p = i0; p < i1; ++p)
        for (std::int64_t q = j0; q < j1; ++q) dst[p * i.to + q] = src[p + q * j.from];
    }
  }
}

/// dst[sum i_d dst_strides[d]] = src[sum i_d src_strides[d]] over the box of `extents`. Strides count elements and are
/// not negative; a source stride of 0 repeats. The arrays may not overlap.
template <class T>
void strided_copy(int rank, const std::int64_t* extents, const T* src, const std::int64_t* src_strides, T* dst,
                  const std::int64_t* dst_strides) {
  // Dimensions by falling destination stride, without those of size 1; neighbours that are one run are merged.
  CopyDimension dims[max_rank];
  int n = 0;
  for (int d = 0; d < rank; ++d) {
    if (extents[d] == 0) return;
    if (extents[d] == 1) continue;
    int at = n++;
    for (; at > 0 && dims[at - 1].to < dst_strides[d]; --at) dims[at] = dims[at - 1];
    dims[at] = {extents[d], src_strides[d], dst_strides[d]};
  }
  int kept = 0;
  for (int d = 0; d < n; ++d) {
    const CopyDimension& next = dims[d];
    if (kept > 0 && dims[kept - 1].from == next.size * next.from && dims[kept - 1].to == next.size * next.to)
      dims[kept - 1] = {dims[kept - 1].size * next.size, next.from, next.to};
    else
      dims[kept++] = next;
  }
  if (kept == 0) {
    *dst = *src;
    return;
  }
  const CopyDimension inner = dims[--kept];
  enum class Row { run, transpose, strided } row = Row::strided;
  CopyDimension other{};
  if (inner.from == 1 && inner.to == 1) {
    row = Row::run;
  } else if (inner.to == 1) {
    for (int d = kept - 1; d >= 0 && row == Row::strided; --d) {
      if (dims[d].from != 1) continue;
      row = Row::transpose;
      other = dims[d];
      for (--kept; d < kept; ++d) dims[d] = dims[d + 1];
      break;
    }
  }
  std::int64_t index[max_rank] = {};
  for (;;) {
    switch (row) {
      case Row::run: std::memcpy(static_cast<void*>(dst), src, static_cast<std::size_t>(inner.size) * sizeof(T)); break;
      case Row::transpose: transpose_copy(other, inner, src, dst); break;
      case Row::strided:
        for (std::int64_t i = 0; i < inner.size; ++i) dst[i * inner.to] = src[i * inner.from];
        break;
    }
    int d = kept - 1;
    for (; d >= 0; --d) {
      src += dims[d].from;
      dst += dims[d].to;
      if (++index[d] < dims[d].size) break;
      index[d] = 0;
      src -= dims[d].from * dims[d].size;
      dst -= dims[d].to * dims[d].size;
    }
    if (d < 0) return;
  }
}

/// The strided copy that exchanges dimensions p and q, dense on both sides; `shape` is the source's.
struct TransposeStrides {
  std::int64_t extents[max_rank] = {};
  std::int64_t from[max_rank] = {};
  std::int64_t to[max_rank] = {};

  TransposeStrides(const Extents& shape, int p, int q) {
    std::int64_t step = 1;
    for (int d = shape.rank - 1; d >= 0; --d) {
      from[d] = step;
      step *= shape[d];
    }
    step = 1;
    for (int d = shape.rank - 1; d >= 0; --d) {
      const int source = d == p ? q : d == q ? p : d;
      to[source] = step;
      step *= shape[source];
    }
    for (int d = 0; d < shape.rank; ++d) extents[d] = shape[d];
  }
};

/// dst = src with dimensions p and q exchanged, dense; `shape` is the source's.
template <class T>
void transpose(const Extents& shape, int p, int q, const T* src, T* dst) {
  if (shape.elements() == 0) return;
  const TransposeStrides s(shape, p, q);
  strided_copy(shape.rank, s.extents, src, s.from, dst, s.to);
}

/// Copies `outer` rows of `length` elements from rows `src_stride` apart to rows `dst_stride` apart.
template <class T>
void copy_rows(const T* src, std::int64_t src_stride, T* dst, std::int64_t dst_stride, std::int64_t outer,
               std::int64_t length) {
  if (length == 0) return;
  if (src_stride == length && dst_stride == length) {
    length *= outer;
    outer = outer == 0 ? 0 : 1;
  }
  for (std::int64_t o = 0; o < outer; ++o)
    std::memcpy(static_cast<void*>(dst + o * dst_stride), src + o * src_stride,
                static_cast<std::size_t>(length) * sizeof(T));
}

/// dst[:, offset : offset + n, :] = src, where dst is (outer, total, inner) and src (outer, n, inner): a part of a
/// concatenation, and the backward pass of a slice into zeros.
template <class T>
void insert_slice(const T* src, T* dst, std::int64_t outer, std::int64_t n, std::int64_t inner, std::int64_t total,
                  std::int64_t offset) {
  copy_rows(src, n * inner, dst + offset * inner, total * inner, outer, n * inner);
}

/// dst = src[:, offset : offset + n, :], where src is (outer, total, inner): a slice, and the backward pass of a part of
/// a concatenation.
template <class T>
void extract_slice(const T* src, T* dst, std::int64_t outer, std::int64_t n, std::int64_t inner, std::int64_t total,
                   std::int64_t offset) {
  copy_rows(src + offset * inner, total * inner, dst, n * inner, outer, n * inner);
}

}  // namespace shardwise::detail::kernels
