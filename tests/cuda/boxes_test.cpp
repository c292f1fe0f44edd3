// Boxes that a device packs, unpacks and adds up, against loops on the host.
#include <complex>
#include <string>
#include <vector>

#include <shardwise/comm/reduce.hpp>
#include <shardwise/placement/walk.hpp>

#include "cuda/device.hpp"

namespace {

using namespace test;
using shardwise::dtype_of;
using shardwise::ReduceOp;
using shardwise::detail::Box;
using shardwise::detail::Walk;
using shardwise::detail::device::BoxCopy;

// A random part of a tensor of random sizes.
struct Part {
  Box held, part;
  Walk to_packed;
};
Part random_part(Random& random, std::int64_t multiple) {
  Part p;
  const int rank = static_cast<int>(1 + random.below(6));
  p.held.size.rank = p.held.offset.rank = p.part.size.rank = p.part.offset.rank = rank;
  for (int d = 0; d < rank; ++d) {
    const bool last = d == rank - 1;
    const std::int64_t m = last ? multiple : 1;
    p.held.size[d] = m * (1 + random.below(last ? 9 : 4));
    p.part.offset[d] = m * random.below(p.held.size[d] / m);
    p.part.size[d] = random.below(12) == 0 ? 0 : m * (1 + random.below((p.held.size[d] - p.part.offset[d]) / m));
    if (random.below(3) == 0) p.part.offset[d] = 0, p.part.size[d] = p.held.size[d];
  }
  p.to_packed = shardwise::detail::walk(p.part, p.held, p.part);
  return p;
}
BoxCopy copy_of(const Walk& w, const void* src, void* dst, std::size_t element, bool reversed = false) {
  BoxCopy box{};
  box.rank = w.rank;
  for (int d = 0; d < w.rank; ++d) {
    box.extents[d] = w.empty ? 0 : w.extent[d];
    box.src_strides[d] = reversed ? w.stride_b[d] : w.stride_a[d];
    box.dst_strides[d] = reversed ? w.stride_a[d] : w.stride_b[d];
  }
  const auto at = [&](std::int64_t start) { return static_cast<std::size_t>(start) * element; };
  box.src = static_cast<const std::byte*>(src) + at(reversed ? w.start_b : w.start_a);
  box.dst = static_cast<std::byte*>(dst) + at(reversed ? w.start_a : w.start_b);
  return box;
}

template <class T>
void random_packs(std::uint64_t seed, int rounds) {
  Random random{seed};
  for (int round = 0; round < rounds; ++round) {
    const int count = static_cast<int>(random.below(40));
    const std::int64_t multiple = random.below(2) == 0 ? 1 : 16;
    std::vector<Part> parts;
    std::vector<std::vector<T>> sources;
    std::vector<OnDevice<T>> from, to;
    std::vector<BoxCopy> boxes;
    std::vector<std::vector<T>> want;
    for (int i = 0; i < count; ++i) {
      const Part p = random_part(random, multiple);
      const auto shift = static_cast<std::size_t>(random.below(4) == 0 ? 1 : 0);
      sources.push_back(random_values<T>(random, p.held.size.elements()));
      from.emplace_back(sources.back());
      want.emplace_back(static_cast<std::size_t>(p.part.size.elements()));
      to.emplace_back(want.back(), shift);
      const Walk& w = p.to_packed;
      T* at = want.back().data();
      const T* const source = sources.back().data();
      shardwise::detail::for_each_row(
          w, [&](std::int64_t a, std::int64_t) { at = std::copy_n(source + a, w.extent[w.rank - 1], at); });
      parts.push_back(p);
    }
    for (int i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      boxes.push_back(copy_of(parts[k].to_packed, from[k].data(), to[k].data(), sizeof(T)));
    }
    device::copy_boxes(sizeof(T), boxes.data(), count, stream());
    for (int i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      INFO("box ", i, " of ", count);
      CHECK(near(to[k].read(), want[k], 0));
    }
  }
}

SHARDWISE_DEVICE_TEST(
    "boxes are packed together as the host packs them one by one: none, one, more than one kernel takes") {
  random_packs<std::uint8_t>(3, 12);
  random_packs<bfloat16>(5, 12);
  random_packs<float>(7, 20);
  random_packs<std::complex<double>>(9, 12);
}

template <class T>
void random_reductions(std::uint64_t seed, int rounds, std::vector<ReduceOp> ops, int most = 9) {
  Random random{seed};
  for (int round = 0; round < rounds; ++round) {
    const Part p = random_part(random, random.below(2) == 0 ? 1 : 8);
    const ReduceOp op = ops[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(ops.size())))];
    const int count = most > 64 ? most : static_cast<int>(1 + random.below(most));
    const int own = random.below(3) == 0 ? -1 : static_cast<int>(random.below(count < 64 ? count : 64));
    const int divisor = op == ReduceOp::sum && random.below(3) == 0 ? count : 1;
    const std::int64_t n = p.part.size.elements();
    std::vector<std::vector<T>> terms;
    std::vector<OnDevice<T>> there;
    std::vector<const void*> packed, on_host;
    for (int t = 0; t < count; ++t) terms.push_back(random_values<T>(random, n, -1, 1));
    for (int t = 0; t < count; ++t) {
      there.emplace_back(terms[static_cast<std::size_t>(t)]);
      on_host.push_back(terms[static_cast<std::size_t>(t)].data());
    }
    for (int t = 0; t < count; ++t) packed.push_back(t == own ? nullptr : there[static_cast<std::size_t>(t)].data());
    // The own term lies in a tensor, the result goes to one like it.
    std::vector<T> tensor(static_cast<std::size_t>(p.held.size.elements())), want(static_cast<std::size_t>(n));
    const Walk& w = p.to_packed;
    if (own >= 0) {
      const T* from = terms[static_cast<std::size_t>(own)].data();
      shardwise::detail::for_each_row(w, [&](std::int64_t a, std::int64_t) {
        std::copy_n(from, w.extent[w.rank - 1], tensor.data() + a);
        from += w.extent[w.rank - 1];
      });
    }
    const OnDevice<T> mine(tensor), out(tensor);
    BoxCopy box = copy_of(w, mine.data(), out.data(), sizeof(T), false);
    for (int d = 0; d < box.rank; ++d) box.dst_strides[d] = box.src_strides[d];
    box.dst = out.data() + w.start_a;
    device::reduce_box(dtype_of<T>, box, packed.data(), count, own, op, divisor, stream());

    const auto& kernels = shardwise::detail::reduce_kernels_of(dtype_of<T>);
    if (n > 0)
      shardwise::detail::reduce_blocks(kernels, want.data(), on_host.data(), count, n,
                                       divisor != 1 ? ReduceOp::avg : op, false);
    const T* result = want.data();
    shardwise::detail::for_each_row(w, [&](std::int64_t a, std::int64_t) {
      std::copy_n(result, w.extent[w.rank - 1], tensor.data() + a);
      result += w.extent[w.rank - 1];
    });
    INFO("round ", round, ": ", count, " terms, own ", own);
    // An average is rounded once here, a sum of 16-bit numbers beyond 64 terms twice.
    CHECK(near(out.read(), tensor, sizeof(T) == 2 ? (count > 64 ? 64 : divisor != 1 ? 2 : 0) : divisor != 1 ? 1 : 0));
  }
}

SHARDWISE_DEVICE_TEST("terms that were packed, and one that was not, are added up where the result lies") {
  const std::vector<ReduceOp> all{ReduceOp::sum, ReduceOp::product, ReduceOp::max, ReduceOp::min};
  random_reductions<float>(21, 40, all);
  random_reductions<double>(22, 20, all);
  random_reductions<half>(23, 20, all);
  random_reductions<std::int32_t>(24, 20, all);
  random_reductions<std::uint8_t>(25, 20, all);
  random_reductions<std::complex<float>>(26, 20, {ReduceOp::sum});
  random_reductions<float>(27, 3, {ReduceOp::sum}, 130);
  random_reductions<bfloat16>(28, 2, {ReduceOp::max}, 200);
}

// Positions in rising order, with gaps, each times a stride.
std::vector<std::int64_t> random_positions(Random& random, std::int64_t n, std::int64_t stride, std::int64_t& end) {
  std::vector<std::int64_t> list;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < n; ++i, ++at) {
    at += random.below(3);
    list.push_back(at * stride);
  }
  end = at * stride + 1;
  return list;
}

template <class T>
void random_lists(std::uint64_t seed, int rounds, std::size_t shift_bytes = 0) {
  Random random{seed};
  for (int round = 0; round < rounds; ++round) {
    const int rank = static_cast<int>(random.below(4));
    device::ListedCopy copy{};
    copy.rank = rank;
    std::int64_t n = 1, stride = 1;
    std::vector<std::vector<std::int64_t>> lists(static_cast<std::size_t>(rank));
    std::vector<OnDevice<std::int64_t>> there(static_cast<std::size_t>(rank), OnDevice<std::int64_t>(0));
    for (int d = rank - 1; d >= 0; --d) {
      copy.extents[d] = random.below(8) == 0 ? 0 : 1 + random.below(6);
      n *= copy.extents[d];
      const auto k = static_cast<std::size_t>(d);
      lists[k] = random_positions(random, copy.extents[d], stride, stride);
      there[k] = OnDevice<std::int64_t>(lists[k]);
    }
    // Out of a tensor, one after the other, and back.
    const std::vector<T> tensor = random_values<T>(random, stride);
    std::vector<T> packed(static_cast<std::size_t>(n)), back(tensor.size());
    for (std::int64_t i = 0; i < n; ++i) {
      std::int64_t at = 0, rest = i;
      for (int d = rank - 1; d >= 0; --d) {
        at += lists[static_cast<std::size_t>(d)][static_cast<std::size_t>(rest % copy.extents[d])];
        rest /= copy.extents[d];
      }
      packed[static_cast<std::size_t>(i)] = tensor[static_cast<std::size_t>(at)];
      back[static_cast<std::size_t>(at)] = tensor[static_cast<std::size_t>(at)];
    }
    const OnDevice<T> from(tensor), to(back.size());
    const OnDevice<unsigned char> middle(static_cast<std::size_t>(n) * sizeof(T) + shift_bytes);
    for (int d = 0; d < rank; ++d) copy.src_offsets[d] = there[static_cast<std::size_t>(d)].data();
    copy.src = from.data();
    copy.dst = middle.data() + shift_bytes;
    device::copy_listed(sizeof(T), copy, stream());
    const std::vector<unsigned char> bytes = middle.read();
    CHECK((n == 0 || std::memcmp(bytes.data() + shift_bytes, packed.data(), packed.size() * sizeof(T)) == 0));
    std::swap(copy.src_offsets, copy.dst_offsets);
    copy.src = middle.data() + shift_bytes;
    copy.dst = to.data();
    device::copy_listed(sizeof(T), copy, stream());
    CHECK(near(to.read(), back, 0));
  }
}

SHARDWISE_DEVICE_TEST("lists of positions are packed and placed, complex numbers at a multiple of their half too") {
  random_lists<std::uint8_t>(41, 15);
  random_lists<half>(42, 15);
  random_lists<float>(43, 30);
  random_lists<std::complex<double>>(44, 15);
  random_lists<std::complex<float>>(45, 15, 4);
}

SHARDWISE_DEVICE_TEST("complex terms have no maximum") {
  const OnDevice<std::complex<float>> x(4), y(4);
  BoxCopy box{};
  box.rank = 1;
  box.extents[0] = 4;
  box.src_strides[0] = box.dst_strides[0] = 1;
  box.dst = y.data();
  const void* terms[] = {x.data()};
  CHECK_THROWS_WITH_AS(device::reduce_box(dtype_of<std::complex<float>>, box, terms, 1, -1, ReduceOp::max, 1, stream()),
                       "shardwise::reduce_box: complex numbers have no maximum and no minimum", shardwise::Error);
}

}  // namespace
