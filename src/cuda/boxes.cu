// Kernels that pack and unpack what ranks exchange.
#include <algorithm>

#include <shardwise/cuda/bodies/boxes.hpp>
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>

namespace shardwise::detail::device {

namespace {

CopyPlan plan_of(std::size_t element, const BoxCopy& box, int largest = 16) {
  return CopyPlan(box.rank, box.extents, element, box.src, box.src_strides, box.dst, box.dst_strides, largest);
}

// Those of the boxes that fit one kernel; gives how many were looked at.
template <int Bytes>
int copy_some(std::size_t element, const BoxCopy* boxes, int count, const StreamView& stream) {
  using Body = CopyBoxesBody<Bytes>;
  Body body{};
  int i = 0;
  for (; i < count && body.count < Body::most; ++i) {
    const CopyPlan plan = plan_of(element, boxes[i], Bytes);
    if (plan.rank > Body::most_dimensions)  // seldom: neighbouring dimensions have been merged
      strided_copy(element, boxes[i].rank, boxes[i].extents, boxes[i].src, boxes[i].src_strides, boxes[i].dst,
                   boxes[i].dst_strides, stream);
    else if (plan.rank >= 0)
      body.add(plan, boxes[i].src, boxes[i].dst);
  }
  launch(body, body.units(), stream);
  return i;
}

bool chunks_fit(const BoxCopy& box, const void* const* terms, int count, int own, std::int64_t width,
                std::size_t alignment) {
  auto bits = reinterpret_cast<std::uintptr_t>(box.dst);
  for (int t = 0; t < count; ++t) bits |= reinterpret_cast<std::uintptr_t>(t == own ? box.src : terms[t]);
  bool fit = bits % alignment == 0 && box.extents[box.rank - 1] % width == 0;
  for (int d = 0; d + 1 < box.rank; ++d)
    fit = fit && box.dst_strides[d] % width == 0 && (own < 0 || box.src_strides[d] % width == 0);
  return fit;
}

template <class T, int W>
void reduce_chunks(const BoxCopy& box, const void* const* terms, int count, int own, ReduceOp op, int divisor,
                   const StreamView& stream) {
  ReduceBoxBody<T, W> body{{}, static_cast<T*>(box.dst), count, own, divisor, op, {}};
  for (int d = box.rank - 1; d >= 0; --d) {
    const bool last = d == box.rank - 1;
    body.strides.add(last ? box.extents[d] / W : box.extents[d],
                     last      ? 1
                     : own < 0 ? 0
                               : box.src_strides[d] / W,
                     last ? 1 : box.dst_strides[d] / W);
  }
  for (int t = 0; t < count; ++t) body.terms[t] = static_cast<const T*>(t == own ? box.src : terms[t]);
  launch(body, body.strides.elements(), stream);
}

}  // namespace

void copy_boxes(std::size_t element, const BoxCopy* boxes, int count, const StreamView& stream) {
  if (count == 1)
    return strided_copy(element, boxes->rank, boxes->extents, boxes->src, boxes->src_strides, boxes->dst,
                        boxes->dst_strides, stream);
  int unit = 16;  // of all of them
  for (int i = 0; i < count; ++i) {
    const CopyPlan plan = plan_of(element, boxes[i]);
    if (plan.rank >= 0) unit = std::min(unit, plan.unit);
  }
  for (int done = 0; done < count;) {
    const auto some = [&](auto bytes) { return copy_some<bytes>(element, boxes + done, count - done, stream); };
    done += with_unit(unit, some);
  }
}

void copy_listed(std::size_t element, const ListedCopy& copy, const StreamView& stream) {
  // A complex number may lie at a multiple of its half.
  const bool halves =
      (reinterpret_cast<std::uintptr_t>(copy.src) | reinterpret_cast<std::uintptr_t>(copy.dst)) % element != 0;
  with_unit(static_cast<int>(halves ? element / 2 : element), [&](auto bytes) {
    ListedCopyBody<bytes> body{};
    body.rank = copy.rank;
    body.units = halves ? 2 : 1;
    std::int64_t n = body.units;
    for (int d = 0; d < copy.rank; ++d) {
      n *= copy.extents[d];
      body.size[d] = Divider(copy.extents[d]);
      body.from[d] = copy.src_offsets[d];
      body.to[d] = copy.dst_offsets[d];
    }
    body.src = static_cast<const Unit<bytes>*>(copy.src);
    body.dst = static_cast<Unit<bytes>*>(copy.dst);
    launch(body, n, stream);
  });
}

void reduce_box(DType dtype, const BoxCopy& box, const void* const* terms, int count, int own, ReduceOp op, int divisor,
                const StreamView& stream) {
  const bool ordered = dtype != DType::complex64 && dtype != DType::complex128;
  SHARDWISE_REQUIRE(ordered || (op != ReduceOp::max && op != ReduceOp::min),
                    "shardwise::reduce_box: complex numbers have no maximum and no minimum");
  visit_dtype(dtype, [&]<class T>(T) {
    constexpr int width = chunk_elements<T>;
    BoxCopy part = box;
    for (int done = 0; done < count;) {
      // Behind the first 64 the sum so far is a term: the output.
      const void* some[max_terms];
      const int before = done > 0 ? 1 : 0, n = std::min(count - done, max_terms - before);
      for (int t = 0; t < n; ++t) some[before + t] = done + t == own ? nullptr : terms[done + t];
      int mine = own >= done && own < done + n ? own - done + before : -1;
      if (before == 1) {
        SHARDWISE_REQUIRE(mine < 0, "shardwise::reduce_box: the own term is among the first 64");
        mine = 0;
        part.src = box.dst;
        std::copy(box.dst_strides, box.dst_strides + box.rank, part.src_strides);
      }
      const int total = n + before, by = done + n == count ? divisor : 1;
      const bool fit = width > 1 && chunks_fit(part, some, total, mine, width, Chunk<T>::alignment);
      fit ? reduce_chunks<T, width>(part, some, total, mine, op, by, stream)
          : reduce_chunks<T, 1>(part, some, total, mine, op, by, stream);
      done += n;
    }
  });
}

}  // namespace shardwise::detail::device
