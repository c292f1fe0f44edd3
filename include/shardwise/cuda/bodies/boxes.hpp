// Boxes of row-major tensors: several copied by one kernel, the terms of one added up where they lie. What an exchange between ranks
// packs and unpacks. Layer: cuda.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/cuda/bodies/copy.hpp>
#include <shardwise/cuda/bodies/elementwise.hpp>

namespace shardwise::detail::device {

/// Several copies, one behind the other. Index: a unit of one of the destinations, neighbours along its fastest dimension.
template <int Bytes>
struct CopyBoxesBody {
  static constexpr int most = 16;  // a kernel takes 4 KiB of arguments
  static constexpr int most_dimensions = 4;
  struct Entry {
    std::int64_t end;  // of its indices
    const Unit<Bytes>* src;
    Unit<Bytes>* dst;
    TwoStrides<most_dimensions> strides;
  };
  int count = 0;
  Entry entry[most];

  std::int64_t units() const { return count == 0 ? 0 : entry[count - 1].end; }
  void add(const CopyPlan& plan, const void* src, void* dst) {
    Entry& e = entry[count];
    for (int d = 0; d < plan.rank; ++d) e.strides.add(plan.size[d], plan.from[d], plan.to[d]);
    e.src = static_cast<const Unit<Bytes>*>(src);
    e.dst = static_cast<Unit<Bytes>*>(dst);
    e.end = units() + plan.units();
    ++count;
  }
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index) const {
    int k = 0;
    std::int64_t begin = 0;
    while (index >= entry[k].end) begin = entry[k++].end;
    const Offsets o = entry[k].strides.at(index - begin);
    entry[k].dst[o.b] = entry[k].src[o.a];
  }
};

/// A copy of what lists of offsets name. Index: a unit of an element, the elements in row-major order.
template <int Bytes>
struct ListedCopyBody {
  static constexpr int most = static_cast<int>(max_rank);
  int rank;
  int units;  // of an element
  Divider size[most];
  const std::int64_t* from[most];  // null: one after the other
  const std::int64_t* to[most];
  const Unit<Bytes>* src;
  Unit<Bytes>* dst;

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index) const {
    const std::int64_t element = units == 1 ? index : index / units;
    std::int64_t rest = element, a = 0, b = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
    for (int d = most - 1; d >= 0; --d) {
      if (d >= rank) continue;
      const std::int64_t above = size[d].divide(rest);
      const std::int64_t i = rest - above * size[d].divisor;
      if (from[d] != nullptr) a += from[d][i];
      if (to[d] != nullptr) b += to[d][i];
      rest = above;
    }
    if (rank == 0 || from[0] == nullptr) a = element;
    if (rank == 0 || to[0] == nullptr) b = element;
    const std::int64_t part = index - element * units;
    dst[b * units + part] = src[a * units + part];
  }
};

/// out[at of i] = (terms[0][i] op terms[1][i] op ...) / divisor over a box, whose terms lie one element after the other but for one,
/// which lies in a tensor as the output does. Index: W neighbouring elements.
template <class T, int W>
struct ReduceBoxBody {
  using A = ReduceArithmetic<T>;
  TwoStrides<static_cast<int>(max_rank) + 1> strides;  // a: in the tensor of the own term; b: in the output; in chunks
  T* out;
  int count;
  int own;  // -1: all lie one after the other
  int divisor;
  ReduceOp op;
  const T* terms[max_terms];

  SHARDWISE_HOST_DEVICE void operator()(std::int64_t index) const {
    const Offsets o = strides.at(index);
    typename A::Value acc[W];
    Chunk<T, W> term{};
    const auto load = [&](int t) { term.load(terms[t] + (t == own ? o.a : index) * W, W, W > 1); };
    load(0);
    for (int j = 0; j < W; ++j) acc[j] = A::load(term.value[j]);
#if defined(__CUDA_ARCH__)
#pragma unroll 4
#endif
    for (int t = 1; t < count; ++t) {
      load(t);
      combine(op, acc, term.value);
    }
    for (int j = 0; j < W; ++j) term.value[j] = A::store(divisor != 1 ? A::divide(acc[j], divisor) : acc[j]);
    term.store(out + o.b * W, W, W > 1);
  }
};

}  // namespace shardwise::detail::device
