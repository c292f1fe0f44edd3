// Copies between layouts against loops over indices.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <utility>
#include <vector>

#include <shardwise/ops/kernels/copy.hpp>

namespace {

using namespace shardwise::detail::kernels;
using shardwise::detail::Extents;

struct Random {
  std::uint64_t state = 2024;
  std::uint64_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
  }
  int below(int n) { return static_cast<int>(bits() % static_cast<std::uint64_t>(n)); }
};

Extents extents(std::initializer_list<std::int64_t> sizes) {
  Extents e;
  for (const std::int64_t s : sizes) e[e.rank++] = s;
  return e;
}

TEST_CASE("strided copies equal a loop over indices") {
  Random random;
  for (int round = 0; round < 500; ++round) {
    const int rank = random.below(5);
    std::int64_t size[4] = {}, from[4] = {}, to[4] = {};
    std::int64_t total = 1;
    for (int d = 0; d < rank; ++d)
      total *= size[d] = round % 50 == 0 ? 40 : random.below(20) == 0 ? 0 : 1 + random.below(5);
    if (total > 100000) continue;
    const auto strides = [&](std::int64_t* stride) {  // of a random order of the dimensions, with some gaps
      int order[4] = {0, 1, 2, 3};
      for (int i = rank - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
      std::int64_t step = 1;
      for (int i = 0; i < rank; ++i) {
        stride[order[i]] = step;
        step *= std::max<std::int64_t>(size[order[i]], 1) + (random.below(3) == 0 ? 1 : 0);
      }
      return step;
    };
    std::vector<int> src(static_cast<std::size_t>(strides(from))), got(static_cast<std::size_t>(strides(to)), -1);
    std::iota(src.begin(), src.end(), 0);
    std::vector<int> want = got;
    for (std::int64_t i = 0; i < total; ++i) {
      std::int64_t rest = i, p = 0, q = 0;
      for (int d = rank - 1; d >= 0; --d) {
        p += rest % size[d] * from[d];
        q += rest % size[d] * to[d];
        rest /= size[d];
      }
      want[static_cast<std::size_t>(q)] = src[static_cast<std::size_t>(p)];
    }
    strided_copy(rank, size, src.data(), from, got.data(), to);
    CHECK(got == want);
  }
}

TEST_CASE("a transpose of any two dimensions, done twice, is the identity") {
  for (const Extents& shape : {extents({70, 45}), extents({3, 40, 5}), extents({2, 3, 4, 5}), extents({3, 0, 2})}) {
    for (int p = 0; p < shape.rank; ++p) {
      for (int q = 0; q < shape.rank; ++q) {
        std::vector<int> x(static_cast<std::size_t>(shape.elements())), y(x.size()), z(x.size());
        std::iota(x.begin(), x.end(), 0);
        transpose(shape, p, q, x.data(), y.data());
        Extents turned = shape;
        std::swap(turned[p], turned[q]);
        transpose(turned, p, q, y.data(), z.data());
        CHECK(z == x);
        if (shape == extents({3, 40, 5}) && p == 0 && q == 1) CHECK(y[5] == 200);
      }
    }
  }
}

TEST_CASE("parts put together and taken apart again are the parts") {
  const std::int64_t outer = 2, inner = 3, first = 4, second = 1;
  std::vector<int> a(24), b(6), whole(30, -1), back(6), front(24);
  std::iota(a.begin(), a.end(), 0);
  std::iota(b.begin(), b.end(), 100);
  insert_slice(a.data(), whole.data(), outer, first, inner, first + second, 0);
  insert_slice(b.data(), whole.data(), outer, second, inner, first + second, first);
  CHECK(whole[12] == 100);
  CHECK(whole[15] == 12);
  extract_slice(whole.data(), back.data(), outer, second, inner, first + second, first);
  extract_slice(whole.data(), front.data(), outer, first, inner, first + second, 0);
  CHECK(back == b);
  CHECK(front == a);
}

}  // namespace
