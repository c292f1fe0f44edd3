// Elementwise arithmetic of two tensors with NumPy's broadcasting, with scalars, and the way back: summing a
// gradient to the shape of a broadcast operand. Shapes are run-time values. Layer: ops.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/scalar_functions.hpp>
#include <shardwise/ops/kernels/loop.hpp>
#include <shardwise/ops/kernels/reduce.hpp>

namespace shardwise::detail::kernels {

/// The shape of an elementwise operation on shapes `a` and `b`; throws ShapeError where they do not fit.
inline Extents broadcast_extents(const Extents& a, const Extents& b) {
  Extents out;
  out.rank = a.rank > b.rank ? a.rank : b.rank;
  for (int i = 1; i <= out.rank; ++i) {
    const std::int64_t p = i <= a.rank ? a[a.rank - i] : 1;
    const std::int64_t q = i <= b.rank ? b[b.rank - i] : 1;
    SHARDWISE_REQUIRE(p == q || p == 1 || q == 1,
                      "shapes " + to_string(a) + " and " + to_string(b) + " do not broadcast: sizes " +
                          std::to_string(p) + " and " + std::to_string(q) + " meet in dimension -" + std::to_string(i),
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

// One row: each operand is either contiguous or one repeated value.
template <class T, class F>
void binary_row(const T* a, bool a_repeats, const T* b, bool b_repeats, T* out, std::int64_t n, F f) {
  using A = Accumulator<T>;
  if (b_repeats) {
    const A value = static_cast<A>(*b);
    if (a_repeats) return fill(out, static_cast<T>(f(static_cast<A>(*a), value)), n);
    map(a, out, n, [f, value](A v) { return f(v, value); });
  } else if (a_repeats) {
    const A value = static_cast<A>(*a);
    map(b, out, n, [f, value](A v) { return f(value, v); });
  } else {
    zip(a, b, out, n, f);
  }
}

template <class T, class F>
void binary_loops(const BroadcastLoops& loops, const T* a, const T* b, T* out, F f) {
  const std::int64_t n = loops.size[0];
  std::int64_t index[max_rank] = {};
  for (;;) {
    binary_row(a, loops.a[0] == 0, b, loops.b[0] == 0, out, n, f);
    out += n;
    int d = 1;
    for (; d < loops.rank; ++d) {
      a += loops.a[d];
      b += loops.b[d];
      if (++index[d] < loops.size[d]) break;
      index[d] = 0;
      a -= loops.a[d] * loops.size[d];
      b -= loops.b[d] * loops.size[d];
    }
    if (d == loops.rank) return;
  }
}

/// out = a op b, where `sout == broadcast_extents(sa, sb)`. out may be an operand that is not repeated.
template <class T>
void binary(Binary op, const Extents& sa, const T* a, const Extents& sb, const T* b, const Extents& sout, T* out) {
  if (sout.elements() == 0) return;
  const BroadcastLoops loops(sa, sb, sout);
  with_binary(op, [&](auto f) { binary_loops(loops, a, b, out, f); });
}

/// out[i] = a[i] op s.
template <class T>
void binary_scalar(Binary op, const T* a, T s, T* out, std::int64_t n) {
  with_binary(op, [&](auto f) { binary_row(a, false, &s, true, out, n, f); });
}

/// out[i] = s op a[i].
template <class T>
void binary_scalar_reversed(Binary op, T s, const T* a, T* out, std::int64_t n) {
  with_binary(op, [&](auto f) { binary_row(&s, true, a, false, out, n, f); });
}

/// Sums g of shape `sout` to `out` of shape `sa`, which was broadcast to `sout`. Written, not accumulated.
template <class T>
void reduce_to(const Extents& sout, const T* g, const Extents& sa, T* out) {
  // Runs of dimensions, from the last on: kept ones and repeated ones in turn.
  std::int64_t size[max_rank];
  bool repeated[max_rank];
  int runs = 0;
  for (int i = 1; i <= sout.rank; ++i) {
    const std::int64_t n = sout[sout.rank - i];
    const bool repeats = (i <= sa.rank ? sa[sa.rank - i] : 1) == 1 && n != 1;
    if (n == 1) continue;
    if (runs > 0 && repeated[runs - 1] == repeats) {
      size[runs - 1] *= n;
    } else {
      size[runs] = n;
      repeated[runs++] = repeats;
    }
  }
  int left = 0;
  for (int i = 0; i < runs; ++i) left += repeated[i] ? 1 : 0;
  if (left == 0) {
    if (sout.elements() == 0) return;
    std::memcpy(static_cast<void*>(out), g, static_cast<std::size_t>(sout.elements()) * sizeof(T));
    return;
  }
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < runs; ++i) outer *= size[i];
  if (outer == 0) return fill(out, T(0), sa.elements());
  std::vector<T> held, next;
  for (int i = 0; i < runs; ++i) {
    outer /= size[i];
    if (!repeated[i]) {
      inner *= size[i];
      continue;
    }
    if (--left == 0) return sum_dim(g, out, outer, size[i], inner);
    next.resize(static_cast<std::size_t>(outer * inner));
    sum_dim(g, next.data(), outer, size[i], inner);
    held.swap(next);
    g = held.data();
  }
}

template <class T>
T conjugate(T x) {
  if constexpr (StdComplex<T>)
    return T(x.real(), -x.imag());
  else
    return x;
}

/// Gradients of `out = a op b`, written; null where not wanted. `add` and `sub` read neither a nor b.
/// For complex numbers the convention is PyTorch's: the conjugate of the derivative.
template <class T>
void binary_backward(Binary op, const Extents& sa, const T* a, const Extents& sb, const T* b, const Extents& sout,
                     const T* dy, T* da, T* db) {
  using A = Accumulator<T>;
  const std::int64_t n = sout.elements();
  const bool sum = op == Binary::add || op == Binary::sub;
  std::vector<T> terms;
  // f(value of the operand, gradient) for an operand's own elements; what they are repeated to is summed.
  const auto by_operand = [&](const Extents& shape, const T* operand, T* into, const Extents& target, auto f) {
    T* product = into;
    if (target != sout) {
      terms.resize(static_cast<std::size_t>(n));
      product = terms.data();
    }
    if (n > 0) binary_loops(BroadcastLoops(shape, sout, sout), operand, dy, product, f);
    if (target != sout) reduce_to(sout, terms.data(), target, into);
  };
  if (da != nullptr) {
    if (sum)
      reduce_to(sout, dy, sa, da);
    else if (op == Binary::mul)
      by_operand(sb, b, da, sa, [](A v, A g) { return g * conjugate(v); });
    else
      by_operand(sb, b, da, sa, [](A v, A g) { return g / conjugate(v); });
  }
  if (db == nullptr) return;
  if (sum) {
    reduce_to(sout, dy, sb, db);
  } else {
    by_operand(sa, a, db, sb, [](A v, A g) { return g * conjugate(v); });
  }
  const std::int64_t count = sb.elements();
  if (op == Binary::sub) {
    map(db, db, count, [](A v) { return -v; });
  } else if (op == Binary::div) {  // -a / b^2, and b is constant over what was summed
    for (std::int64_t i = 0; i < count; ++i) {
      const A v = conjugate(static_cast<A>(b[i]));
      db[i] = static_cast<T>(-static_cast<A>(db[i]) / (v * v));
    }
  }
}

}  // namespace shardwise::detail::kernels
