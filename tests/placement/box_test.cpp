// Boxes against PyTorch's answers and against themselves: what each rank holds partitions the index space.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <shardwise/placement/box.hpp>

#include "support/json.hpp"

using namespace shardwise;
using test::Json;

namespace {

detail::PlacementValue parse(const std::string& text) {
  if (text == "R") return detail::replicate_value();
  if (text[0] == 'P') return detail::partial_value();
  return detail::shard_value(text[2] - '0');
}

template <class T>
detail::Extents extents(const std::vector<T>& sizes) {
  detail::Extents e;
  e.rank = static_cast<int>(sizes.size());
  for (std::size_t d = 0; d < sizes.size(); ++d) e.size[d] = sizes[d];
  return e;
}

template <std::size_t N>
void compare(const Json& c) {
  detail::PlacementList<N> placements{};
  Shape<N> mesh{};
  for (std::size_t a = 0; a < N; ++a) {
    placements[a] = parse(c["placements"][a].string());
    mesh[a] = c["mesh_shape"][a].integer();
  }
  const detail::Extents global = extents(c["global_shape"].numbers<std::int64_t>());
  for (const Json& rank : c["ranks"].items()) {
    Shape<N> at{};
    for (std::size_t a = 0; a < N; ++a) at[a] = rank["coord"][a].integer();
    const detail::Box box = box_of(placements, mesh, at, global);
    INFO("case ", c["id"].integer(), " rank ", rank["rank"].integer());
    CHECK(box.size == extents(rank["shape"].numbers<std::int64_t>()));
    CHECK(box.offset == extents(rank["offset"].numbers<std::int64_t>()));
    CHECK(box.empty() == rank["empty"].boolean());
  }
}

}  // namespace

TEST_CASE("local shapes and offsets are PyTorch's, in all 300 layouts") {
  const Json data = Json::load("layouts.json");
  CHECK(data["cases"].size() == 300);
  for (const Json& c : data["cases"].items()) {
    const std::size_t axes = c["mesh_shape"].size();
    REQUIRE(axes >= 1);
    REQUIRE(axes <= 3);
    if (axes == 1) compare<1>(c);
    if (axes == 2) compare<2>(c);
    if (axes == 3) compare<3>(c);
  }
}

TEST_CASE("UT-2 18 rows over (4, 2), twice on one dimension: chunks of chunks") {
  const detail::PlacementList<2> twice{detail::shard_value(0), detail::shard_value(0)};
  for (std::int64_t dp = 0; dp < 4; ++dp)
    for (std::int64_t tp = 0; tp < 2; ++tp) {
      const detail::Box box = box_of(twice, {4, 2}, {dp, tp}, extents<int>({18, 2}));
      const std::int64_t first = dp < 3 ? 3 : 2;
      CHECK(box.size == extents<std::int64_t>({tp == 0 ? first : (dp < 3 ? 2 : 1), 2}));
      CHECK(box.offset == extents<std::int64_t>({5 * dp + (tp == 0 ? 0 : first), 0}));
    }
}

TEST_CASE("UT-3 13 rows over (4, 2), twice on one dimension: the last shard is empty and lies at 13") {
  const detail::PlacementList<2> twice{detail::shard_value(0), detail::shard_value(0)};
  for (std::int64_t dp = 0; dp < 4; ++dp)
    for (std::int64_t tp = 0; tp < 2; ++tp) {
      const detail::Box box = box_of(twice, {4, 2}, {dp, tp}, extents<int>({13, 2}));
      CHECK(box.size[0] == (dp < 3 ? 2 : tp == 0 ? 1 : 0));
      CHECK(box.offset[0] == (dp < 3 ? 4 * dp + 2 * tp : tp == 0 ? 12 : 13));
    }
}

TEST_CASE("RD-56 4 rows over (2, 3), twice on one dimension: ranks 2 and 5 are empty") {
  const detail::PlacementList<2> twice{detail::shard_value(0), detail::shard_value(0)};
  const std::int64_t owner[] = {0, 1, 3, 4};
  std::int64_t row = 0;
  for (std::int64_t r = 0; r < 6; ++r) {
    const detail::Box box = box_of(twice, {2, 3}, {r / 3, r % 3}, extents<int>({4, 3}));
    if (row < 4 && r == owner[row]) {
      CHECK(box.size[0] == 1);
      CHECK(box.offset[0] == row++);
    } else {
      CHECK(box.empty());
    }
  }
  CHECK(row == 4);
}

TEST_CASE("UT-9 shards partition the index space, on every mesh and for every size") {
  for (const std::int64_t n : {0, 1, 2, 3, 5, 7, 8, 15, 16, 64})
    for (const std::int64_t m : {0, 1, 3, 8})
      for (const Shape<2>& mesh : {Shape<2>{2, 4}, Shape<2>{3, 2}, Shape<2>{1, 7}, Shape<2>{4, 1}})
        for (int p = 0; p < 9; ++p) {
          const auto placement = [](int k) { return k == 2 ? detail::replicate_value() : detail::shard_value(k); };
          const detail::PlacementList<2> placements{placement(p / 3), placement(p % 3)};
          std::vector<int> times(static_cast<std::size_t>(n * m), 0);
          for (std::int64_t a = 0; a < mesh[0]; ++a)
            for (std::int64_t b = 0; b < mesh[1]; ++b) {
              const detail::Box box = box_of(placements, mesh, {a, b}, extents<std::int64_t>({n, m}));
              for (std::int64_t i = 0; i < box.size[0]; ++i)
                for (std::int64_t j = 0; j < box.size[1]; ++j)
                  ++times[static_cast<std::size_t>((box.offset[0] + i) * m + box.offset[1] + j)];
            }
          int copies = 1;
          for (std::size_t a = 0; a < 2; ++a)
            if (placements[a].is_replicate()) copies *= static_cast<int>(mesh[a]);
          bool partitions = true;
          for (const int t : times) partitions = partitions && t == copies;
          CHECK(partitions);
        }
}
