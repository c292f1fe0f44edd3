// From whom a rank reads: of the replicas of a source the nearest, which is one alone.
#include <doctest/doctest.h>

#include <map>
#include <vector>

#include <shardwise/placement/move.hpp>

#include "support/tuples.hpp"

using namespace shardwise;
using detail::PlacementValue;
using test::coordinates;

namespace {

using List = std::vector<PlacementValue>;
using Index = std::vector<std::int64_t>;

bool holds(const List& list, const Index& mesh, const Index& rank, const detail::Extents& global, std::int64_t row,
           std::int64_t column) {
  const detail::Box box = detail::box_of(list.data(), mesh.data(), rank.data(), static_cast<int>(mesh.size()), global);
  return row >= box.offset[0] && row < box.offset[0] + box.size[0] && column >= box.offset[1] &&
         column < box.offset[1] + box.size[1];
}

int distance(const Index& a, const Index& b) {
  int n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += a[i] != b[i] ? 1 : 0;
  return n;
}

// Every element that a rank wants is read once, from a holder that every other holder is farther away than.
void check(const Index& mesh, const List& from, const List& to) {
  detail::Extents global;
  global.rank = 2;
  global.size[0] = 7;
  global.size[1] = 6;
  const detail::MoveView view{from.data(), to.data(), mesh.data(), static_cast<int>(mesh.size())};
  for (const Index& me : coordinates(mesh)) {
    const detail::MovePlan plan(view, me.data(), global);
    std::map<std::pair<std::int64_t, std::int64_t>, Index> read_from;
    detail::Coordinate c{};
    if (plan.first_piece(c)) {
      do {
        const detail::Box piece = intersection(plan.wanted(), plan.held(c));
        for (std::int64_t i = 0; i < piece.size[0]; ++i)
          for (std::int64_t j = 0; j < piece.size[1]; ++j) {
            const bool first =
                read_from.emplace(std::pair(piece.offset[0] + i, piece.offset[1] + j), Index(c.at, c.at + mesh.size()))
                    .second;
            CHECK(first);  // of two pieces only one has it
          }
      } while (plan.next_piece(c));
    }
    for (std::int64_t row = 0; row < global[0]; ++row)
      for (std::int64_t column = 0; column < global[1]; ++column) {
        if (!holds(to, mesh, me, global, row, column)) continue;
        const auto owner = read_from.find({row, column});
        REQUIRE(owner != read_from.end());
        CHECK(holds(from, mesh, owner->second, global, row, column));
        for (const Index& other : coordinates(mesh))
          if (holds(from, mesh, other, global, row, column)) CHECK(distance(me, other) >= distance(me, owner->second));
      }
  }
}

}  // namespace

TEST_CASE("of the replicas of a source the nearest is read, for all pairs of Replicate and Shard") {
  const PlacementValue kinds[] = {detail::replicate_value(), detail::shard_value(0), detail::shard_value(1)};
  for (const Index& mesh : {Index{2, 2}, Index{2, 3}, Index{4, 2}})
    for (const PlacementValue& f0 : kinds)
      for (const PlacementValue& f1 : kinds)
        for (const PlacementValue& t0 : kinds)
          for (const PlacementValue& t1 : kinds) check(mesh, {f0, f1}, {t0, t1});
  for (const PlacementValue& f0 : kinds)
    for (const PlacementValue& t2 : kinds) check({2, 2, 2}, {f0, kinds[0], kinds[1]}, {kinds[1], kinds[2], t2});
}
