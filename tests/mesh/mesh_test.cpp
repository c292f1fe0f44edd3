// DeviceMesh: grids, coordinates, groups, sub-meshes, flattening, errors.
#include <shardwise/core.hpp>
#include <shardwise/testing/doctest.hpp>

#include <algorithm>
#include <vector>

#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

using Ranks = std::vector<int>;

// The world ranks of a communicator, in its order.
template <class Comm>
Ranks members(const Comm& group, int me) {
  Ranks ranks(static_cast<std::size_t>(group.size()));
  const std::int32_t mine = me;
  group.template all_gather<std::int32_t>({&mine, 1}, ranks);
  return ranks;
}

}  // namespace

SHARDWISE_TEST_RANKS("ME-1 a mesh of one axis over the whole world uses the world's own group", 4) {
  CHECK(init_device_mesh<"tp">(world, {4}).communicator<"tp">().id() == world.id());
  CHECK(init_device_mesh<"tp">(world, {4}, {.ranks = {1, 0, 2, 3}}).communicator<"tp">().id() != world.id());
}

SHARDWISE_TEST_RANKS("ME-6 ME-8 the groups of the axes of a (2, 2) mesh", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const int r = world.rank();
  CHECK(mesh.ranks() == Ranks{0, 1, 2, 3});
  CHECK(mesh.size() == 4);
  CHECK(mesh.size<"dp">() == 2);
  CHECK(mesh.shape() == Shape<2>{2, 2});
  CHECK(mesh.get<"dp">().ranks() == (r % 2 == 0 ? Ranks{0, 2} : Ranks{1, 3}));
  CHECK(mesh.get<"tp">().ranks() == (r < 2 ? Ranks{0, 1} : Ranks{2, 3}));
  CHECK(members(mesh.communicator<"dp">(), r) == mesh.get<"dp">().ranks());
  CHECK(members(mesh.communicator<"tp">(), r) == mesh.get<"tp">().ranks());
  CHECK(mesh.communicator<"tp">().axis() == Name("tp"));
  CHECK(mesh.get<"tp">().communicator<"tp">().id() == mesh.communicator<"tp">().id());
}

SHARDWISE_TEST_RANKS("ME-7 coordinates and local ranks, of flattened axes too", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const int r = world.rank();
  CHECK(mesh.coordinate() == Shape<2>{r / 2, r % 2});
  CHECK(mesh.local_rank<"dp">() == r / 2);
  CHECK(mesh.local_rank<"tp">() == r % 2);
  CHECK(mesh.get<"tp">().local_rank() == r % 2);
  CHECK(mesh.flatten<"dp", "tp">().local_rank() == r);
}

SHARDWISE_TEST_RANKS("ME-14 ME-16 ME-19 the groups and slices of a (2, 2, 2) mesh", 8) {
  const auto mesh = init_device_mesh<"dp", "pp", "tp">(world, {2, 2, 2});
  const int r = world.rank();
  CHECK(mesh.local_rank<"tp">() == r % 2);
  CHECK(mesh.local_rank<"pp">() == (r % 4) / 2);
  CHECK(mesh.local_rank<"dp">() == r / 4);
  CHECK(mesh.get<"tp">().ranks() == Ranks{r - r % 2, r - r % 2 + 1});
  CHECK(mesh.get<"dp">().ranks() == Ranks{r % 4, r % 4 + 4});
  const int pp = r - 2 * ((r % 4) / 2);
  CHECK(mesh.get<"pp">().ranks() == Ranks{pp, pp + 2});
  const auto outer = mesh.get<"dp", "pp">();
  CHECK(outer.ranks() == (r % 2 == 0 ? Ranks{0, 2, 4, 6} : Ranks{1, 3, 5, 7}));
  const auto skipping = mesh.get<"dp", "tp">();  // the middle axis stays
  CHECK(skipping.ranks() == ((r % 4) / 2 == 0 ? Ranks{0, 1, 4, 5} : Ranks{2, 3, 6, 7}));
  CHECK(skipping.shape() == Shape<2>{2, 2});
  CHECK(skipping.coordinate() == Shape<2>{r / 4, r % 2});
  CHECK(members(skipping.group(3u), r) == skipping.ranks());
  CHECK(skipping.get<"tp">() == mesh.get<"tp">());  // a slice of a slice
  CHECK(mesh.get<"dp", "pp", "tp">().identity() == mesh.identity());
  // Asked again: the same mesh, no new group.
  const Counter counter;
  CHECK(mesh.get<"dp", "tp">().identity() == skipping.identity());
  CHECK(mesh.get<"tp">().identity() == mesh.get<"tp">().identity());
  CHECK(counter.total == 0);
}

SHARDWISE_TEST_RANKS("ME-15 meshes are equal for equal grids", 4) {
  const auto a = init_device_mesh<"tp">(world, {4});
  const auto b = init_device_mesh<"tp">(world, {4});
  const auto c = init_device_mesh<"tp">(world, {4}, {.ranks = {3, 2, 1, 0}});
  CHECK(a == b);
  CHECK(!(a == c));
  CHECK(c.local_rank() == 3 - world.rank());
  CHECK(members(c.communicator<"tp">(), world.rank()) == Ranks{3, 2, 1, 0});
  static_assert(!std::is_same_v<std::remove_const_t<decltype(a)>, DeviceMesh<testing::World, "dp">>);
  const auto d = init_device_mesh<"dp", "tp">(world, {4, 1});
  const auto e = init_device_mesh<"dp", "tp">(world, {2, 2});
  CHECK(!(d == e));
}

SHARDWISE_TEST_RANKS("ME-20 flattening: names, ranks, tensors, and nothing new the second time", 8) {
  const auto mesh = init_device_mesh<"dp", "cp", "tp">(world, {2, 2, 2});
  const int r = world.rank();
  const auto dp_cp = mesh.flatten<"dp", "cp">();
  static_assert(decltype(dp_cp)::names[0] == Name("dp_cp"));
  CHECK(dp_cp.ranks() == (r % 2 == 0 ? Ranks{0, 2, 4, 6} : Ranks{1, 3, 5, 7}));
  CHECK(dp_cp.communicator<"dp_cp">().axis() == Name("dp_cp"));
  const auto dp_tp = mesh.flatten<"dp", "tp">();
  CHECK(dp_tp.ranks() == ((r % 4) / 2 == 0 ? Ranks{0, 1, 4, 5} : Ranks{2, 3, 6, 7}));
  CHECK(members(dp_tp.communicator<"dp_tp">(), r) == dp_tp.ranks());
  CHECK(dp_tp.local_rank() == 2 * (r / 4) + r % 2);
  {
    const Counter counter;
    CHECK(mesh.flatten<"dp", "cp">().identity() == dp_cp.identity());
    CHECK(counter.total == 0);
  }
  const auto tp = mesh.get<"tp">();
  CHECK(tp.flatten<"tp">() == tp);
  const auto all = mesh.flatten<"dp", "cp", "tp">();
  const auto whole = counting<float>({13, 2});
  CHECK(equal(distribute_tensor<Shard<0>>(whole, all).full_tensor(), whole));
}

SHARDWISE_TEST_RANKS("ME-21 axes of one rank and worlds of one", 1) {
  const auto mesh = init_device_mesh<"a", "b", "c", "d">(world, {1, 1, 1, 1});
  CHECK(mesh.coordinate() == Shape<4>{0, 0, 0, 0});
  CHECK(mesh.flatten<"a", "c">().size() == 1);
  CHECK(mesh.get<"b", "d">().ranks() == Ranks{0});
}

SHARDWISE_TEST_RANKS("ME-17 what does not make a mesh is an error that says why", 4) {
  CHECK(contains(thrown<Error>([&] { (void)init_device_mesh<"tp">(world, {5}); }),
                 "a mesh of 5 ranks does not fit a world of 4"));
  CHECK(contains(thrown<Error>([&] { (void)init_device_mesh<"tp">(world, {0}); }), "axis \"tp\" has size 0"));
  CHECK(
      contains(thrown<Error>([&] { (void)init_device_mesh<"dp", "tp">(world, {-2, -2}); }), "axis \"dp\" has size -2"));
  CHECK(contains(thrown<Error>([&] { (void)init_device_mesh<"tp">(world, {2}, {.ranks = {0}}); }),
                 "1 ranks are listed for a mesh of 2"));
  CHECK(contains(thrown<Error>([&] { (void)init_device_mesh<"tp">(world, {2}, {.ranks = {1, 1}}); }),
                 "rank 1 is listed twice"));
  CHECK(contains(thrown<Error>([&] { (void)init_device_mesh<"tp">(world, {2}, {.ranks = {0, 4}}); }),
                 "rank 4 is not in a world of 4"));
  // All ranks failed alike: the world is still good.
  CHECK(init_device_mesh<"tp">(world, {4}).size() == 4);
}

SHARDWISE_TEST_RANKS("ME-18 the deadline of a mesh is the deadline of its axes", 2) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {1, 2}, {.deadline = std::chrono::milliseconds(1234)});
  CHECK(mesh.communicator<"tp">().deadline() == std::chrono::milliseconds(1234));
  CHECK(mesh.flatten<"dp", "tp">().communicator<"dp_tp">().deadline() == std::chrono::milliseconds(1234));
}

SHARDWISE_TEST_RANKS(
    "ME-13 ME-24 slices of unrelated meshes keep to their own, and all slices of an axis make the mesh", 8) {
  const int r = world.rank();
  const auto mesh = init_device_mesh<"replicate", "shard">(world, {2, 4});
  const auto reversed = init_device_mesh<"replicate", "shard">(world, {2, 4}, {.ranks = {7, 6, 5, 4, 3, 2, 1, 0}});
  const auto mine = mesh.get<"replicate">();
  CHECK(mine.ranks() == Ranks{r % 4, r % 4 + 4});
  CHECK(reversed.get<"replicate">().ranks() == Ranks{4 + r % 4, r % 4});
  CHECK(!(mine == reversed.get<"replicate">()));
  CHECK(mesh.get<"shard">().ranks() == (r < 4 ? Ranks{0, 1, 2, 3} : Ranks{4, 5, 6, 7}));
  CHECK(reversed.get<"shard">().ranks() == (r < 4 ? Ranks{3, 2, 1, 0} : Ranks{7, 6, 5, 4}));
  std::vector<int> all(16);  // the slices of all ranks: four different ones, each named by its two members
  world.all_gather<std::int32_t>({mine.ranks().data(), 2}, all);
  for (std::size_t rank = 0; rank < 8; ++rank) {
    CHECK(all[2 * rank] == static_cast<int>(rank % 4));
    CHECK(all[2 * rank + 1] == static_cast<int>(rank % 4 + 4));
  }
}

SHARDWISE_TEST_RANKS("a rank outside the mesh knows that it is, and its sub-meshes are empty", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 1}, {.ranks = {3, 1}});
  const int r = world.rank();
  const bool member = r == 1 || r == 3;
  CHECK(mesh.is_member() == member);
  CHECK(mesh.coordinate().has_value() == member);
  CHECK(mesh.get<"dp">().is_member() == member);
  CHECK(mesh.flatten<"dp", "tp">().is_member() == member);
  CHECK(mesh.size() == 2);
  if (member)
    CHECK(mesh.local_rank<"dp">() == (r == 3 ? 0 : 1));
  else
    CHECK(contains(thrown<Error>([&] { (void)mesh.local_rank<"dp">(); }), "this rank is not part of the mesh"));
}

SHARDWISE_TEST_RANKS("a communicator that a user keeps stays where it is", 8) {
  const auto mesh = init_device_mesh<"a", "b", "c">(world, {2, 2, 2});
  const testing::World& kept = mesh.communicator<"a">();
  const testing::World* before = &kept;
  for (std::uint32_t set = 1; set < 8; ++set) (void)mesh.group(set);
  CHECK(before == &mesh.communicator<"a">());
  CHECK(kept.size() == 2);
}

SHARDWISE_TEST_RANKS("ME-25 collectives along an axis: the first rank of each group gives, and pieces need not be even",
                     8) {
  const int r = world.rank();
  const auto grid = init_device_mesh<"a", "b", "c">(world, {2, 2, 2});
  const auto broadcast = [&](const testing::World& group, int first) {
    std::int32_t value = r;
    group.broadcast<std::int32_t>({&value, 1}, 0);
    CHECK(value == first);
  };
  broadcast(grid.communicator<"a">(), r % 4);
  broadcast(grid.communicator<"b">(), r - 2 * (r / 2 % 2));
  broadcast(grid.communicator<"c">(), r - r % 2);

  const auto line = init_device_mesh<"tp">(world, {8});
  const auto whole = counting<float>({11, 9});
  const auto along = [&]<int D>(Shard<D>) {
    const auto x = distribute_tensor<Shard<D>>(whole, line);  // scatter
    const std::int64_t sizes[] = {2, 2, 2, 2, D == 0 ? 2 : 1, D == 0 ? 1 : 0, 0, 0};
    CHECK(x.local_shape()[D] == sizes[r]);
    for (std::int64_t i = 0; i < x.local_shape()[0]; ++i)
      for (std::int64_t j = 0; j < x.local_shape()[1]; ++j)
        CHECK(x.data()[i * x.local_shape()[1] + j] ==
              whole.data()[(i + (D == 0 ? 2 * r : 0)) * 9 + j + (D == 1 ? 2 * r : 0)]);
    CHECK(equal(redistribute<Replicate>(x).to_local(), whole));  // all_gather
    const auto sum = redistribute<Shard<D>>(from_local<Partial<>>(whole, line));  // reduce_scatter
    CHECK(sum.local_shape() == x.local_shape());
    for (std::int64_t i = 0; i < sum.size(); ++i) CHECK(sum.data()[i] == 8 * x.data()[i]);
  };
  along(Shard<0>());
  along(Shard<1>());
}
