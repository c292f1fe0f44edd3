// Sums over one dimension of (outer, n, inner), spreading back, and the scatter of gradients to the rows of a table. A sum is kept in
// the type in which the host keeps it (double for float), by threads that each take a part, then in fixed order: equal inputs give
// equal bits. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/base/dtype.hpp>
#include <shardwise/cuda/bodies/index.hpp>

namespace shardwise::detail::device {

/// What a sum is taken of: elements of type T, or partial sums of type S.
template <class T, class S>
struct SumLoad {
  const T* x;
  const S* partial;  // null: `x`
  SHARDWISE_HOST_DEVICE S at(std::int64_t index, std::int64_t) const {
    return partial != nullptr ? partial[index] : static_cast<S>(static_cast<Accumulator<T>>(x[index]));
  }
};

/// Where sums go: as elements of T, or as partial sums of type S that are added up afterwards.
template <class T, class S>
struct SumTarget {
  T* out;
  S* partial;  // null: `out`
  SHARDWISE_HOST_DEVICE void put(std::int64_t at, S sum) const {
    if (partial != nullptr)
      partial[at] = sum;
    else
      out[at] = static_cast<T>(static_cast<Accumulator<T>>(sum));
  }
};

struct SumShape {
  std::int64_t n;  // summed
  std::int64_t inner;  // behind it
  std::int64_t run;  // elements of n that a team takes
  Divider parts;  // runs of n
};

/// inner == 1. Index: a run of a row; a team adds it up.
template <class Load, class T, class S>
struct SumRowBody {
  static constexpr std::size_t shared_bytes = 0;
  Load load;
  SumTarget<T, S> target;
  SumShape shape;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index, const Team& team) const {
    const std::int64_t row = shape.parts.divide(index);
    const std::int64_t from = (index - row * shape.parts.divisor) * shape.run;
    const std::int64_t count = shape.n - from < shape.run ? shape.n - from : shape.run;
    const Load& source = load;
    const std::int64_t first = row * shape.n + from;
    const S sum = team.reduce(
        count, S(0), [&](S& acc, std::int64_t i) { acc = acc + source.at(first + i, from + i); },
        [](S a, S b) { return a + b; });
    team.once([&] { target.put(index, sum); });
  }
};

/// inner > 1. Index: a strip of 32 columns of a run; 8 rows of threads add up, then one row.
template <class Load, class T, class S>
struct SumColumnBody {
  static constexpr int columns = 32, rows = 8;
  static constexpr std::size_t shared_bytes = sizeof(S) * columns * rows;
  Load load;
  SumTarget<T, S> target;
  SumShape shape;
  Divider strips;

  template <class Team>
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index, const Team& team) const {
    const std::int64_t run = strips.divide(index);
    const std::int64_t column = (index - run * strips.divisor) * columns;
    const std::int64_t outer = shape.parts.divide(run);
    const std::int64_t from = (run - outer * shape.parts.divisor) * shape.run;
    const std::int64_t to = shape.n - from < shape.run ? shape.n : from + shape.run;
    S* const held = team.template shared<S>();
    team.each(columns * rows, [&](std::int64_t k) {
      const std::int64_t c = column + k % columns;
      S sum = S(0);
      if (c < shape.inner)
        for (std::int64_t j = from + k / columns; j < to; j += rows)
          sum = sum + load.at((outer * shape.n + j) * shape.inner + c, j);
      held[k] = sum;
    });
    team.sync();
    team.each(columns, [&](std::int64_t k) {
      if (column + k >= shape.inner) return;
      S sum = held[k];
      for (int r = 1; r < rows; ++r) sum = sum + held[r * columns + k];
      target.put(run * shape.inner + column + k, sum);
    });
  }
};

/// dx (outer, n, inner) = factor dy (outer, inner). Index: an element of dx.
template <class T>
struct SpreadBody {
  const T* dy;
  T* dx;
  Accumulator<T> factor;
  Divider inner, n_inner;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t outer = n_inner.divide(i);
    const std::int64_t rest = i - outer * n_inner.divisor;
    const std::int64_t column = rest - inner.divide(rest) * inner.divisor;
    dx[i] = static_cast<T>(static_cast<Accumulator<T>>(dy[outer * inner.divisor + column]) * factor);
  }
};

template <class A>
SHARDWISE_HOST_DEVICE void add_atomically(A* to, A value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, value);
#else
  *to += value;
#endif
}

/// table[index[i] - first] += dy[i] for rows of `width` elements that this part of the table has. Index: an element of dy. Rows that
/// occur several times are added up in no fixed order: the last bits may differ from run to run, as in PyTorch.
template <class T>
struct ScatterAddBody {
  const T* dy;
  const std::int64_t* index;
  Accumulator<T>* table;
  std::int64_t first, count;
  Divider width;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t position = width.divide(i);
    const std::int64_t row = index[position] - first;
    if (row < 0 || row >= count) return;
    add_atomically(table + row * width.divisor + (i - position * width.divisor), static_cast<Accumulator<T>>(dy[i]));
  }
};

}  // namespace shardwise::detail::device
