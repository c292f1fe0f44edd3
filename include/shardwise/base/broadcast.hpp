// Broadcasting as sizes and strides: the shape of a result, the loops over two operands, the sums that lead back to the shape of an
// operand. Layer: base.
#pragma once

#include <cstdint>
#include <string>

#include <shardwise/base/error.hpp>
#include <shardwise/base/extents.hpp>

namespace shardwise::detail::kernels {

/// The shape of an elementwise operation on shapes `a` and `b`; throws ShapeError where they do not fit.
inline Extents broadcast_extents(const Extents& a, const Extents& b) {
  Extents out;
  out.rank = a.rank > b.rank ? a.rank : b.rank;
  for (int i = 1; i <= out.rank; ++i) {
    const std::int64_t p = i <= a.rank ? a[a.rank - i] : 1;
    const std::int64_t q = i <= b.rank ? b[b.rank - i] : 1;
    SHARDWISE_REQUIRE(
        p == q || p == 1 || q == 1,
        text("shapes ", a, " and ", b, " do not broadcast: sizes ", p, " and ", q, " meet in dimension -", i),
        ShapeError);
    out[out.rank - i] = p == 1 ? q : p;
  }
  return out;
}

// A nest of loops over the output with the strides of both operands (0 where repeated). Dimensions that both
// operands walk alike are merged: equal shapes give one loop, a bias two.
struct BroadcastLoops {
  std::int64_t size[max_rank];
  std::int64_t a[max_rank];
  std::int64_t b[max_rank];
  int rank = 0;

  BroadcastLoops(const Extents& sa, const Extents& sb, const Extents& out) {
    std::int64_t step_a = 1, step_b = 1;  // collected from the last dimension on, turned round below
    for (int i = 1; i <= out.rank; ++i) {
      const std::int64_t n = out[out.rank - i];
      const std::int64_t na = i <= sa.rank ? sa[sa.rank - i] : 1;
      const std::int64_t nb = i <= sb.rank ? sb[sb.rank - i] : 1;
      const std::int64_t stride_a = na == 1 ? 0 : step_a;
      const std::int64_t stride_b = nb == 1 ? 0 : step_b;
      step_a *= na;
      step_b *= nb;
      if (n == 1) continue;
      if (rank > 0 && stride_a == a[rank - 1] * size[rank - 1] && stride_b == b[rank - 1] * size[rank - 1]) {
        size[rank - 1] *= n;
        continue;
      }
      size[rank] = n;
      a[rank] = stride_a;
      b[rank] = stride_b;
      ++rank;
    }
    if (rank == 0) {
      size[0] = 1;
      a[0] = b[0] = 1;
      rank = 1;
    }
  }
};

// Runs of dimensions of `whole`, from the last on: those that `part` has and those in which it was repeated, in turn. Sums over the
// repeated ones lead from `whole` back to `part`.
struct SumRuns {
  std::int64_t size[max_rank];
  bool repeated[max_rank];
  int count = 0;
  int repeated_runs = 0;

  SumRuns(const Extents& whole, const Extents& part) {
    for (int i = 1; i <= whole.rank; ++i) {
      const std::int64_t n = whole[whole.rank - i];
      const bool repeats = (i <= part.rank ? part[part.rank - i] : 1) == 1 && n != 1;
      if (n == 1) continue;
      if (count > 0 && repeated[count - 1] == repeats) {
        size[count - 1] *= n;
      } else {
        size[count] = n;
        repeated_runs += repeats ? 1 : 0;
        repeated[count++] = repeats;
      }
    }
  }
};

}  // namespace shardwise::detail::kernels
