// A box inside two row-major tensors as a list of runs: neighbouring dimensions are merged, so that what is
// contiguous in both is one run. Layer: placement.
#pragma once

#include <cstdint>

#include <shardwise/base/extents.hpp>
#include <shardwise/placement/box.hpp>

namespace shardwise::detail {

// A box as seen in two local tensors of equal rank: up to max_rank merged dimensions, the last one contiguous.
struct Walk {
  std::int64_t extent[max_rank + 1];
  std::int64_t stride_a[max_rank + 1];
  std::int64_t stride_b[max_rank + 1];
  std::int64_t start_a = 0;
  std::int64_t start_b = 0;
  int rank = 0;  // at least 1; extent[rank - 1] is contiguous in both
  bool empty = false;
};

// `piece` lies inside both `a` and `b`, the boxes that two local tensors hold.
constexpr Walk walk(const Box& piece, const Box& a, const Box& b) {
  Walk w;
  const int n = piece.size.rank;
  std::int64_t stride_a = 1;
  std::int64_t stride_b = 1;
  // From the innermost dimension outwards; `w` is filled in reverse.
  std::int64_t extent[max_rank + 1] = {1};
  std::int64_t sa[max_rank + 1] = {1};
  std::int64_t sb[max_rank + 1] = {1};
  int merged = 0;
  for (int d = n - 1; d >= 0; --d) {
    if (piece.size[d] == 0) w.empty = true;
    w.start_a += (piece.offset[d] - a.offset[d]) * stride_a;
    w.start_b += (piece.offset[d] - b.offset[d]) * stride_b;
    if (piece.size[d] != 1) {
      if (extent[merged] * sa[merged] == stride_a && extent[merged] * sb[merged] == stride_b) {
        extent[merged] *= piece.size[d];
      } else {
        ++merged;
        extent[merged] = piece.size[d];
        sa[merged] = stride_a;
        sb[merged] = stride_b;
      }
    }
    stride_a *= a.size[d];
    stride_b *= b.size[d];
  }
  w.rank = merged + 1;
  for (int i = 0; i <= merged; ++i) {
    w.extent[merged - i] = extent[i];
    w.stride_a[merged - i] = sa[i];
    w.stride_b[merged - i] = sb[i];
  }
  return w;
}

// From one run of rows to the next: the dimensions outside the last two, counted up. False after the last run.
[[gnu::noinline]] inline bool next_rows(const Walk& w, std::int64_t* index, std::int64_t& at_a, std::int64_t& at_b) {
  for (int d = w.rank - 3; d >= 0; --d) {
    at_a += w.stride_a[d];
    at_b += w.stride_b[d];
    if (++index[d] < w.extent[d]) return true;
    at_a -= w.extent[d] * w.stride_a[d];
    at_b -= w.extent[d] * w.stride_b[d];
    index[d] = 0;
  }
  return false;
}

// Calls row(offset in a, offset in b) for every contiguous run of extent[rank - 1] elements. `row` stands once in it: it is
// compiled for each kind of row.
template <class Row>
void for_each_row(const Walk& w, Row&& row) {
  if (w.empty) return;
  const int d = w.rank - 2;
  const std::int64_t rows = d < 0 ? 1 : w.extent[d];
  const std::int64_t stride_a = d < 0 ? 0 : w.stride_a[d];
  const std::int64_t stride_b = d < 0 ? 0 : w.stride_b[d];
  std::int64_t index[max_rank + 1] = {};
  std::int64_t at_a = w.start_a;
  std::int64_t at_b = w.start_b;
  do {
    for (std::int64_t i = 0; i < rows; ++i) row(at_a + i * stride_a, at_b + i * stride_b);
  } while (next_rows(w, index, at_a, at_b));
}

}  // namespace shardwise::detail
