// Elementwise arithmetic of two tensors with NumPy's broadcasting, with scalars, and the way back: summing a
// gradient to the shape of a broadcast operand. Shapes are run-time values. Layer: ops.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include <shardwise/base/broadcast.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/base/scalar_functions.hpp>
#include <shardwise/ops/kernels/loop.hpp>
#include <shardwise/ops/kernels/reduce.hpp>

namespace shardwise::detail::kernels {

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
  const SumRuns runs(sout, sa);
  int left = runs.repeated_runs;
  if (left == 0) {
    if (sout.elements() == 0) return;
    std::memcpy(static_cast<void*>(out), g, static_cast<std::size_t>(sout.elements()) * sizeof(T));
    return;
  }
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < runs.count; ++i) outer *= runs.size[i];
  if (outer == 0) return fill(out, T(0), sa.elements());
  std::vector<T> held, next;
  for (int i = 0; i < runs.count; ++i) {
    outer /= runs.size[i];
    if (!runs.repeated[i]) {
      inner *= runs.size[i];
      continue;
    }
    if (--left == 0) return sum_dim(g, out, outer, runs.size[i], inner);
    next.resize(static_cast<std::size_t>(outer * inner));
    sum_dim(g, next.data(), outer, runs.size[i], inner);
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
