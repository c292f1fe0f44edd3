// Copies and sums of boxes, element by element against plain loops: what is streamed past the caches too.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <shardwise/redistribute/box_copy.hpp>
#include <shardwise/redistribute/packed_box.hpp>

using namespace shardwise;
using namespace shardwise::detail;

namespace {

template <class T>
T value(std::int64_t i) {
  return static_cast<T>((i * 37 + 11) % 251);
}

// `n` elements that begin `at` elements behind a line of the cache, with a guard on each side.
template <class T>
struct Guarded {
  static constexpr std::int64_t guard = 64;
  std::vector<T> memory;
  std::int64_t start;
  std::int64_t n;

  Guarded(std::int64_t elements, std::int64_t at)
      : memory(static_cast<std::size_t>(elements + 4 * guard), T(99)), n(elements) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data() + guard);
    start = guard + static_cast<std::int64_t>((64 - address % 64) % 64 / sizeof(T)) + at;
  }
  T* data() { return memory.data() + start; }
  bool guards_hold() const {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(memory.size()); ++i)
      if ((i < start || i >= start + n) && memory[static_cast<std::size_t>(i)] != T(99)) return false;
    return true;
  }
};

template <class T>
void check_streams(bool streamed) {
  for (const std::int64_t n : {0, 1, 3, 15, 16, 17, 64, 129, 1000})
    for (const std::int64_t at : {0, 1, 3, 4, 8, 13})
      for (const int count : {1, 2, 3, 4, 7}) {
        CAPTURE(n);
        CAPTURE(at);
        CAPTURE(count);
        std::vector<Guarded<T>> terms;
        for (int t = 0; t < count; ++t) {
          terms.emplace_back(n, (at * (t + 2)) % 16);
          for (std::int64_t i = 0; i < n; ++i) terms.back().data()[i] = value<T>(i + 1000 * t) / T(3);
        }
        std::vector<const T*> from;
        for (auto& t : terms) from.push_back(t.data());
        Guarded<T> first(n, at), second(n, 0), third(n, 1);
        T* to[] = {first.data(), second.data(), third.data()};
        sum_terms(to, 3, from.data(), count, n, count * 512, streamed);
        Guarded<T> copy(n, at);
        stream_copy(copy.data(), from.back(), static_cast<std::size_t>(n) * sizeof(T), at * 64);
        stream_fence();
        bool same = true;
        for (std::int64_t i = 0; i < n; ++i) {
          T sum = from[0][i];
          for (std::size_t t = 1; t < from.size(); ++t) sum += from[t][i];
          for (const T* out : to) same = same && out[i] == sum;
          same = same && copy.data()[i] == from.back()[i];
        }
        CHECK(same);
        CHECK(first.guards_hold());
        CHECK(second.guards_hold());
        CHECK(third.guards_hold());
        CHECK(copy.guards_hold());
      }
}

Box box(std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t columns) {
  Box b;
  b.offset = Extents(Shape<2>{row, column});
  b.size = Extents(Shape<2>{rows, columns});
  return b;
}

// A piece of `held` lands in `wanted`, everything around it stays.
template <class T>
void check_boxes(const Box& piece, const Box& held, const Box& wanted, int count, int outputs, ReduceOp op) {
  const auto index = [](const Box& b, std::int64_t i, std::int64_t j) {
    return static_cast<std::size_t>((i - b.offset[0]) * b.size[1] + (j - b.offset[1]));
  };
  const auto elements = [](const Box& b) { return static_cast<std::size_t>(b.size.elements()); };
  std::vector<std::vector<T>> terms(static_cast<std::size_t>(count), std::vector<T>(elements(held)));
  std::vector<std::vector<T>> results(static_cast<std::size_t>(outputs), std::vector<T>(elements(wanted), T(7)));
  std::vector<const std::byte*> in;
  std::vector<std::byte*> out;
  for (std::size_t t = 0; t < terms.size(); ++t) {
    for (std::size_t i = 0; i < terms[t].size(); ++i) terms[t][i] = value<T>(static_cast<std::int64_t>(i + 77 * t));
    in.push_back(reinterpret_cast<const std::byte*>(terms[t].data()));
  }
  for (auto& r : results) out.push_back(reinterpret_cast<std::byte*>(r.data()));
  if (count == 1)
    copy_box(piece, held, in[0], wanted, out[0], sizeof(T));
  else
    reduce_box(dtype_of<T>, piece, held, in.data(), count, wanted, out.data(), outputs, op);
  std::int64_t wrong = 0;
  for (const auto& r : results)
    for (std::int64_t i = wanted.offset[0]; i < wanted.offset[0] + wanted.size[0]; ++i)
      for (std::int64_t j = wanted.offset[1]; j < wanted.offset[1] + wanted.size[1]; ++j) {
        T expected = T(7);
        if (i >= piece.offset[0] && i < piece.offset[0] + piece.size[0] && j >= piece.offset[1] &&
            j < piece.offset[1] + piece.size[1]) {
          expected = terms[0][index(held, i, j)];
          for (std::size_t t = 1; t < terms.size(); ++t) {
            const T term = terms[t][index(held, i, j)];
            expected = op == ReduceOp::max ? (expected < term ? term : expected) : static_cast<T>(expected + term);
          }
        }
        wrong += r[index(wanted, i, j)] != expected;
      }
  CHECK(wrong == 0);
}

template <class T>
void check_large(std::int64_t rows, std::int64_t columns) {
  const Box all = box(0, 0, rows, columns);
  const Box left = box(0, 0, rows, columns / 2 + 1);
  const Box bottom = box(rows / 3, 0, rows - rows / 3, columns);
  const Box inner = box(rows / 3 + 1, 5, rows / 2, columns / 2 - 9);
  REQUIRE(static_cast<std::size_t>(bottom.size.elements()) * sizeof(T) >= streamed_bytes);
  for (const int count : {1, 3, 4}) {
    CAPTURE(count);
    check_boxes<T>(inner, all, bottom, count, 1, ReduceOp::sum);
    check_boxes<T>(bottom, all, bottom, count, 1, ReduceOp::sum);
    check_boxes<T>(inner, left, all, count, 1, ReduceOp::sum);
  }
  check_boxes<T>(inner, all, bottom, 3, 4, ReduceOp::sum);
  check_boxes<T>(inner, all, bottom, 3, 2, ReduceOp::max);
}

}  // namespace

TEST_CASE("copies and sums, streamed or not, give what plain loops give, at any alignment and length") {
  for (const bool streamed : {false, true}) {
    check_streams<float>(streamed);
    check_streams<double>(streamed);
  }
}

TEST_CASE("boxes larger than the caches: copies and reductions land in the piece and nowhere else") {
  check_large<float>(1501, 1203);
  check_large<double>(1501, 801);
  check_large<std::int32_t>(1501, 1203);
}

TEST_CASE("boxes of long and short rows below the size that is streamed") {
  check_boxes<float>(box(2, 1, 3, 5), box(0, 0, 9, 11), box(1, 1, 7, 6), 1, 1, ReduceOp::sum);
  check_boxes<double>(box(2, 1, 3, 40), box(0, 0, 9, 50), box(1, 1, 7, 45), 1, 1, ReduceOp::sum);
  check_boxes<std::uint8_t>(box(2, 1, 3, 5), box(0, 0, 9, 11), box(1, 1, 7, 6), 1, 1, ReduceOp::sum);
  check_boxes<float>(box(2, 1, 3, 300), box(0, 0, 9, 320), box(1, 1, 7, 310), 5, 3, ReduceOp::sum);
}

TEST_CASE("a box in pieces of any size is the box, and is said to lie in one piece where it does") {
  std::mt19937 random(7);
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  int alone = 0;
  for (int round = 0; round < 2000; ++round) {
    Box held, part;
    held.offset.rank = held.size.rank = part.offset.rank = part.size.rank = static_cast<int>(draw(1, 4));
    for (int d = 0; d < held.size.rank; ++d) {
      held.offset[d] = draw(0, 3);
      held.size[d] = draw(1, d + 1 == held.size.rank ? 40 : 6);
      const bool whole = draw(0, 1) == 0;
      part.offset[d] = held.offset[d] + (whole ? 0 : draw(0, held.size[d] - 1));
      part.size[d] = whole ? held.size[d] : draw(1, held.size[d] + held.offset[d] - part.offset[d]);
    }
    const std::size_t element = std::size_t{1} << draw(0, 4);
    std::vector<std::byte> tensor(static_cast<std::size_t>(held.size.elements()) * element);
    for (std::byte& b : tensor) b = static_cast<std::byte>(draw(0, 255));
    std::vector<std::byte> expected(static_cast<std::size_t>(part.size.elements()) * element), packed = expected;
    copy_box(part, held, tensor.data(), part, expected.data(), element);

    const PackedBox box(part, held, element);
    REQUIRE(box.bytes() == static_cast<std::int64_t>(expected.size()));
    for (std::size_t at = 0; at < packed.size();) {
      const std::size_t n = std::min(packed.size() - at, static_cast<std::size_t>(draw(1, 300)));
      box.pack(tensor.data(), at, n, packed.data() + at);
      at += n;
    }
    CAPTURE(round);
    CHECK(packed == expected);
    if (!box.in_one_piece()) continue;
    ++alone;
    CHECK(std::memcmp(box.in(tensor.data()), expected.data(), expected.size()) == 0);
  }
  CHECK(alone > 200);
  CHECK(alone < 1800);
}

TEST_CASE("pieces that no core keeps in its cache are packed past it, to the same bytes") {
  constexpr std::size_t element = 4;
  Box held, part;
  held.offset = Extents(Shape<2>{3, 0}), held.size = Extents(Shape<2>{900, 800});
  part.offset = Extents(Shape<2>{5, 101}), part.size = Extents(Shape<2>{890, 500});
  std::vector<std::byte> tensor(static_cast<std::size_t>(held.size.elements()) * element);
  for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] = static_cast<std::byte>((i * 7 + i / 3200) & 255);
  std::vector<std::byte> expected(static_cast<std::size_t>(part.size.elements()) * element), packed = expected;
  copy_box(part, held, tensor.data(), part, expected.data(), element);
  const PackedBox box(part, held, element);
  for (const std::size_t piece : {expected.size(), std::size_t{1} << 20, std::size_t{700'001}}) {
    std::fill(packed.begin(), packed.end(), std::byte{0});
    for (std::size_t at = 0; at < packed.size(); at += piece)
      box.pack(tensor.data(), at, std::min(piece, packed.size() - at), packed.data() + at);
    CHECK(std::memcmp(packed.data(), expected.data(), packed.size()) == 0);
  }
}
