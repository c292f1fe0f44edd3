// Strided shards: PyTorch's examples by row, and that they are what a later axis, applied first, leaves.
#include <shardwise/core.hpp>
#include <shardwise/testing/doctest.hpp>

#include <algorithm>
#include <vector>

#include "redistribute/values.hpp"

using namespace shardwise;

namespace {

using Indices = std::vector<std::int64_t>;

detail::PlacementValue S(int d) { return detail::shard_value(d); }
detail::PlacementValue SS(int d, std::int64_t factor) { return detail::strided_value(d, factor); }

// The rows that a rank holds, of n.
template <std::size_t N>
Indices rows(const detail::PlacementList<N>& placements, const Shape<N>& mesh, const Shape<N>& at, std::int64_t n) {
  const detail::Holding held = detail::holding_of(placements, mesh, at, detail::Extents(Shape<1>{n}));
  Indices list;
  for (std::int64_t i = 0; i < held.size[0]; ++i) list.push_back(held.dim[0].at(i).index);
  return list;
}

// By lists, as PyTorch describes it: each axis cuts what it is given into `pieces`, each of them into chunks, and takes its own.
struct Cut {
  std::size_t pieces;  // 1: a plain shard
  std::size_t ranks;
  std::size_t mine;
};
Indices chunk_of(const Indices& list, std::size_t k, std::size_t i) {
  const std::size_t length = (list.size() + k - 1) / k;
  const std::size_t begin = std::min(list.size(), i * length);
  const std::size_t end = std::min(list.size(), begin + length);
  return Indices(list.begin() + static_cast<std::ptrdiff_t>(begin), list.begin() + static_cast<std::ptrdiff_t>(end));
}
Indices cut(std::int64_t n, const std::vector<Cut>& cuts) {
  Indices list;
  for (std::int64_t i = 0; i < n; ++i) list.push_back(i);
  for (const Cut& c : cuts) {
    Indices taken;
    for (std::size_t piece = 0; piece < c.pieces; ++piece) {
      const Indices part = chunk_of(chunk_of(list, c.pieces, piece), c.ranks, c.mine);
      taken.insert(taken.end(), part.begin(), part.end());
    }
    list = taken;
  }
  return list;
}

}  // namespace

TEST_CASE("UT-12 eight elements over four ranks, split factor 2, and over (2, 2)") {
  for (std::int64_t r = 0; r < 4; ++r) CHECK(rows<1>({SS(0, 2)}, {4}, {r}, 8) == Indices{r, r + 4});
  const detail::PlacementList<2> then_plain{SS(0, 2), S(0)};
  CHECK(rows(then_plain, {2, 2}, {0, 0}, 8) == Indices{0, 1});
  CHECK(rows(then_plain, {2, 2}, {0, 1}, 8) == Indices{4, 5});
  CHECK(rows(then_plain, {2, 2}, {1, 0}, 8) == Indices{2, 3});
  CHECK(rows(then_plain, {2, 2}, {1, 1}, 8) == Indices{6, 7});
}

TEST_CASE("9 elements over four ranks, split factor 2: pieces of 5 and 4, chunks of chunks") {
  CHECK(rows<1>({SS(0, 2)}, {4}, {0}, 9) == Indices{0, 1, 5});
  CHECK(rows<1>({SS(0, 2)}, {4}, {1}, 9) == Indices{2, 3, 6});
  CHECK(rows<1>({SS(0, 2)}, {4}, {2}, 9) == Indices{4, 7});
  CHECK(rows<1>({SS(0, 2)}, {4}, {3}, 9) == Indices{8});
}

TEST_CASE("UT-1 4096 rows [SS(0,8), S0], data-parallel 30 over tensor-parallel 8: 18 rows, then 8, then none") {
  for (std::int64_t dp = 0; dp < 30; ++dp)
    for (std::int64_t tp = 0; tp < 8; ++tp) {
      const Indices mine = rows<2>({SS(0, 8), S(0)}, {30, 8}, {dp, tp}, 4096);
      REQUIRE(mine.size() == (dp < 28 ? 18u : dp == 28 ? 8u : 0u));
      if (!mine.empty()) CHECK(mine.front() == tp * 512 + 18 * dp);
      if (!mine.empty()) CHECK(mine.back() == mine.front() + static_cast<std::int64_t>(mine.size()) - 1);
    }
}

TEST_CASE("UT-4 18 rows [SS(0,2), S0] over (4, 2): three rows at tp * 9 + 3 * dp, none for the last dp") {
  for (std::int64_t dp = 0; dp < 4; ++dp)
    for (std::int64_t tp = 0; tp < 2; ++tp) {
      const std::int64_t first = tp * 9 + 3 * dp;
      CHECK(rows<2>({SS(0, 2), S(0)}, {4, 2}, {dp, tp}, 18) ==
            (dp < 3 ? Indices{first, first + 1, first + 2} : Indices{}));
    }
}

TEST_CASE("UT-5 39 rows [SS(0,3), SS(0,4)] over (4, 2)") {
  for (std::int64_t dp = 0; dp < 4; ++dp) {
    const Indices first = rows<2>({SS(0, 3), SS(0, 4)}, {4, 2}, {dp, 0}, 39);
    const Indices second = rows<2>({SS(0, 3), SS(0, 4)}, {4, 2}, {dp, 1}, 39);
    CHECK(first.size() == (dp < 3 ? 8u : 3u));
    CHECK(first[0] == 4 * dp);
    CHECK(second.size() == (dp < 3 ? 4u : 0u));
    if (dp < 3) CHECK(second[0] == 4 * dp + 2);
  }
}

TEST_CASE("UT-6 18 rows [S0, SS(0,2)] over (4, 2)") {
  for (std::int64_t dp = 0; dp < 4; ++dp) {
    const Indices first = rows<2>({S(0), SS(0, 2)}, {4, 2}, {dp, 0}, 18);
    const Indices second = rows<2>({S(0), SS(0, 2)}, {4, 2}, {dp, 1}, 18);
    CHECK(first.size() == (dp < 3 ? 3u : 2u));
    CHECK(first[0] == 5 * dp);
    CHECK(second.size() == (dp < 3 ? 2u : 1u));
    CHECK(second[0] == (dp < 3 ? 5 * dp + 2 : 5 * dp + 1));
  }
}

TEST_CASE("UT-7 39 rows [S0, SS(0,2), S0] over (4, 2, 3): the rows of all 24 ranks") {
  for (std::int64_t a = 0; a < 4; ++a)
    for (std::int64_t b = 0; b < 2; ++b)
      for (std::int64_t c = 0; c < 3; ++c) {
        INFO("rank (" << a << ", " << b << ", " << c << ")");
        const auto expected = cut(39, {{1, 4, std::size_t(a)}, {2, 2, std::size_t(b)}, {1, 3, std::size_t(c)}});
        CHECK(rows<3>({S(0), SS(0, 2), S(0)}, {4, 2, 3}, {a, b, c}, 39) == expected);
      }
}

TEST_CASE("UT-20 every split factor from 2 to 16 and size up to 199 over four ranks: the rows that PyTorch gives") {
  for (std::int64_t factor = 2; factor <= 16; ++factor)
    for (std::int64_t n = 1; n < 200; ++n)
      for (std::int64_t r = 0; r < 4; ++r)
        if (rows<1>({SS(0, factor)}, {4}, {r}, n) != cut(n, {{std::size_t(factor), 4, std::size_t(r)}})) {
          INFO("factor " << factor << ", " << n << " rows, rank " << r);
          FAIL("other rows");
        }
}

TEST_CASE("UT-10 15 rows, data-parallel 4 over tensor-parallel 2: sizes and first rows") {
  const std::size_t sizes[] = {2, 2, 2, 2, 2, 2, 2, 1};
  const std::int64_t offsets[] = {0, 8, 2, 10, 4, 12, 6, 14};
  for (std::int64_t r = 0; r < 8; ++r) {
    const Indices mine = rows<2>({SS(0, 2), S(0)}, {4, 2}, {r / 2, r % 2}, 15);
    CHECK(mine.size() == sizes[r]);
    CHECK(mine[0] == offsets[r]);
  }
}

SHARDWISE_TEST_RANKS("RD-32 UT-17 tensor-parallel, then data-parallel: a shard of the shard is [StridedShard, Shard]",
                     4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto whole = test::counting<float>({11, 3});
  const auto tp = distribute_tensor<Shard<0>>(whole, mesh.get<"tp">());
  const auto both = distribute_tensor<Shard<0>>(tp.to_local(), mesh.get<"dp">(), {.src_data_rank = no_source});
  const auto direct = distribute_tensor<StridedShard<0, 2>, Shard<0>>(whole, mesh);
  CHECK(equal(direct.to_local(), both.to_local()));
  CHECK(equal(direct.full_tensor(), whole));
}

SHARDWISE_TEST_RANKS("RD-35 RD-36 RD-37 RD-39 strided shards go anywhere, and a pending sum becomes one", 8) {
  const auto mesh = init_device_mesh<"tp">(world, {8});
  const auto whole = test::counting<float>({16, 13});
  const auto x = distribute_tensor<StridedShard<0, 2>>(whole, mesh);
  CHECK(equal(redistribute<Replicate>(x).to_local(), whole));
  CHECK(equal(redistribute<Shard<0>>(x).to_local(), distribute_tensor<Shard<0>>(whole, mesh).to_local()));
  CHECK(equal(redistribute<Shard<1>>(x).to_local(), distribute_tensor<Shard<1>>(whole, mesh).to_local()));
  CHECK(equal(redistribute<StridedShard<0, 2>>(redistribute<Shard<1>>(x)).to_local(), x.to_local()));
  const auto sum = redistribute<StridedShard<0, 2>>(from_local<Partial<>>(whole, mesh));
  for (std::int64_t i = 0; i < sum.size(); ++i) CHECK(sum.data()[i] == 8 * x.data()[i]);
  static_assert(transition<Partial<>, StridedShard<0, 2>>::collective == Collective::reduce_scatter);
  static_assert(transition<StridedShard<0, 2>, Replicate>::collective == Collective::all_gather);
  static_assert(transition<Shard<0>, StridedShard<0, 2>>::collective == Collective::all_to_all);
  static_assert(transition<Replicate, StridedShard<0, 2>>::collective == Collective::none);

  const auto grid = init_device_mesh<"dp", "tp">(world, {4, 2});
  const auto long_rows = test::counting<float>({24, 8});
  const auto y = redistribute<StridedShard<0, 3>, Replicate>(from_local<Partial<>, Replicate>(long_rows, grid));
  const auto expected = distribute_tensor<StridedShard<0, 3>, Replicate>(long_rows, grid);
  CHECK(y.local_shape() == expected.local_shape());
  for (std::int64_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == 4 * expected.data()[i]);
}

SHARDWISE_TEST_RANKS("a split factor of one is a plain shard", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {3});
  const auto whole = test::counting<float>({7, 2});
  CHECK(equal(distribute_tensor<StridedShard<0, 1>>(whole, mesh).to_local(),
              distribute_tensor<Shard<0>>(whole, mesh).to_local()));
}

SHARDWISE_TEST_RANKS("RD-38 a strided shard becomes a term by zeros around it, as a plain one does", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto whole = test::counting<float>({11, 3});
  const auto term = redistribute<Partial<>>(distribute_tensor<StridedShard<0, 2>>(whole, mesh));
  static_assert(transition<StridedShard<0, 2>, Partial<>>::collective == Collective::none);
  CHECK(equal(redistribute<Replicate>(term).to_local(), whole));
}
