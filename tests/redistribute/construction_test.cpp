// Ways in: distribute_tensor, factories, random tensors, from_local on meshes of several axes and on parts of the world.
#include <shardwise/core.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

// The part of a plain tensor that the rank at `coordinate` holds, by the oracle.
template <class X>
bool is_piece_of(const X& x, const Tensor<float, X::rank>& whole) {
  PlacementVector placements(X::placements.begin(), X::placements.end());
  const Index mesh(x.mesh().shape().begin(), x.mesh().shape().end());
  const Shape<X::rank> sizes = whole.shape();
  const Index global(sizes.begin(), sizes.end());
  std::size_t at = 0;
  bool same = x.shape() == whole.shape();
  for_each_index(held(placements, mesh, coordinate_of(x.mesh()), global), [&](const Index& index) {
    std::int64_t linear = 0;
    for (std::size_t d = 0; d < index.size(); ++d) linear = linear * global[d] + index[d];
    same = same && at < static_cast<std::size_t>(x.size()) && x.data()[at] == whole.data()[linear];
    ++at;
  });
  return same && at == static_cast<std::size_t>(x.size());
}

}  // namespace

SHARDWISE_TEST_RANKS("AP-1 AP-2 distribute_tensor scatters once and gives a leaf", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const bool wanted : {false, true}) {
    auto whole = counting<float>({12, 3});
    whole.requires_grad(wanted);
    const Counter counter;
    const auto x = distribute_tensor<Shard<0>>(whole, mesh);
    CHECK(counter.total == 1);
    CHECK(counter.count(Collective::scatter) == 1);
    CHECK(x.shape() == Shape<2>{12, 3});
    CHECK(x.local_shape() == Shape<2>{3, 3});
    CHECK(x.is_leaf());
    CHECK(x.requires_grad() == wanted);
    CHECK(is_piece_of(x, whole));
  }
  const auto x = distribute_tensor<Shard<-1>>(counting<float>({3, 12}), mesh);
  static_assert(decltype(x)::placements[0] == placement_value<Shard<1>>);
}

SHARDWISE_TEST_RANKS("AP-3 the source rank's data win", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto own = full<float>({8, 4}, static_cast<float>(world.rank()));
  CHECK(all_are(distribute_tensor<Shard<0>>(own, mesh, {.src_data_rank = 1}).full_tensor(), 1));
  CHECK(all_are(distribute_tensor<Shard<1>>(own, mesh, {.src_data_rank = 1}).full_tensor(), 1));
  const Counter counter;
  CHECK(all_are(distribute_tensor<Replicate>(own, mesh, {.src_data_rank = 1}).to_local(), 1));
  CHECK(counter.count(Collective::broadcast) == 1);
  CHECK(counter.total == 1);
  CHECK(contains(thrown<Error>([&] { (void)distribute_tensor<Shard<0>>(own, mesh, {.src_data_rank = 4}); }),
                 "src_data_rank 4"));
}

SHARDWISE_TEST_RANKS("AP-4 without a source each rank takes its part of its own", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto own = full<float>({8, 4}, static_cast<float>(world.rank()));
  const Counter counter;
  const auto rows = distribute_tensor<Shard<0>>(own, mesh, {.src_data_rank = no_source});
  CHECK(rows.local_shape() == Shape<2>{2, 4});
  CHECK(all_are(rows, world.rank()));
  CHECK(all_are(distribute_tensor<Shard<1>>(own, mesh, {.src_data_rank = no_source}), world.rank()));
  CHECK(all_are(distribute_tensor<Replicate>(own, mesh, {.src_data_rank = no_source}), world.rank()));
  CHECK(counter.total == 0);
}

SHARDWISE_TEST_RANKS("AP-5 distribute_tensor takes leaves, and a distributed tensor only as it is", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto other = init_device_mesh<"dp", "tp">(world, {4, 1});
  auto x = distribute_tensor<Shard<0>, Replicate>(counting<float>({4, 4}), mesh);
  CHECK(distribute_tensor<Shard<0>, Replicate>(x, mesh).data() == x.data());
  CHECK(contains(thrown<Error>([&] { (void)distribute_tensor<Shard<0>, Replicate>(x, other); }), "another mesh"));
  x.requires_grad(true);
  const auto result = x.to_local();
  CHECK(contains(thrown<Error>([&] { (void)distribute_tensor<Shard<0>, Replicate>(result, mesh); }),
                 "detach(x) gives a leaf"));
}

SHARDWISE_TEST_RANKS("AP-6 uneven pieces are torch.chunk's", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t n : {13, 14}) {
    CHECK(is_piece_of(distribute_tensor<Shard<0>>(counting<float>({n, 3, 3}), mesh), counting<float>({n, 3, 3})));
    CHECK(is_piece_of(distribute_tensor<Shard<1>>(counting<float>({3, n, 3}), mesh), counting<float>({3, n, 3})));
    CHECK(is_piece_of(distribute_tensor<Shard<2>>(counting<float>({3, 3, n}), mesh), counting<float>({3, 3, n})));
  }
}

SHARDWISE_TEST_RANKS("IN-2 zeros, ones and full on a mesh", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  CHECK(ones<float, Shard<0>>(mesh, {4, 8, 12}).local_shape() == Shape<3>{1, 8, 12});
  CHECK(ones<float, Shard<1>>(mesh, {4, 8, 12}).local_shape() == Shape<3>{4, 2, 12});
  CHECK(ones<float, Shard<2>>(mesh, {4, 8, 12}).local_shape() == Shape<3>{4, 8, 3});
  CHECK(ones<float, Replicate>(mesh, {4, 8, 12}).local_shape() == Shape<3>{4, 8, 12});
  CHECK(is_piece_of(ones<float, Shard<0>>(mesh, {5, 10, 15}), ones<float>({5, 10, 15})));
  CHECK(is_piece_of(full<float, Shard<1>>(mesh, {5, 10, 15}, 123.4f), full<float>({5, 10, 15}, 123.4f)));
  CHECK(is_piece_of(zeros<float, Shard<-1>>(mesh, {5, 10, 15}), zeros<float>({5, 10, 15})));
  const auto rank0 = zeros<float, Replicate>(mesh, Shape<0>{});
  CHECK(rank0.item() == 0.0f);
  CHECK(zeros<float, Partial<>>(mesh, {2, 2}).size() == 4);
  CHECK(contains(thrown<Error>([&] { (void)ones<float, Partial<>>(mesh, {2, 2}); }), "from_local<Partial<>>"));
}

SHARDWISE_TEST_RANKS("IN-3 zeros on meshes of one and of two axes", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const std::int64_t r = world.rank();
  CHECK(zeros<float, Shard<0>>(mesh, {32, 3}).local_shape() == Shape<2>{8, 3});
  CHECK(zeros<float, Shard<0>>(mesh, {31, 3}).local_shape() == Shape<2>{r == 3 ? 7 : 8, 3});
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
  CHECK(zeros<float, Shard<0>, Replicate>(grid, {32, 4}).local_shape() == Shape<2>{16, 4});
  CHECK(zeros<float, Shard<0>, Shard<1>>(grid, {32, 4}).local_shape() == Shape<2>{16, 2});
  CHECK(zeros<float, Shard<0>, Shard<1>>(grid, {31, 3}).local_shape() == Shape<2>{r < 2 ? 16 : 15, r % 2 == 0 ? 2 : 1});
}

SHARDWISE_TEST_RANKS("IN-4 zeros on a part of the world: outsiders know the shape and hold nothing", 4) {
  const int r = world.rank();
  const auto pair = init_device_mesh<"tp">(world, {2}, {.ranks = {0, 3}});
  const auto x = zeros<float, Shard<0>>(pair, {32, 3});
  CHECK(x.shape() == Shape<2>{32, 3});
  CHECK(x.size() == (r == 0 || r == 3 ? 48 : 0));
  const auto three = init_device_mesh<"tp">(world, {3}, {.ranks = {0, 1, 3}});
  const std::int64_t rows[] = {11, 11, 0, 10};
  CHECK(zeros<float, Shard<0>>(three, {32, 3}).size() == 3 * rows[r]);
  const auto grid = init_device_mesh<"dp", "tp">(world, {2, 1}, {.ranks = {0, 3}});
  const auto y = zeros<float, Shard<0>, Shard<1>>(grid, {32, 3});
  CHECK(y.size() == (r == 0 || r == 3 ? 48 : 0));
  CHECK(y.shape() == Shape<2>{32, 3});
}

SHARDWISE_TEST_RANKS("sizes are a list in braces or a shape", 4) {
  const Shape<2> grid{2, 2};
  const auto mesh = init_device_mesh<"dp", "tp">(world, grid);
  CHECK(mesh.shape() == grid);
  const Shape<2> sizes{5, 7};
  CHECK(equal(full<float, Shard<0>, Shard<1>>(mesh, sizes, 2.5f).full_tensor(), full<float>({5, 7}, 2.5f)));
  CHECK(equal(ones<float, Shard<0>, Replicate>(mesh, sizes).full_tensor(), ones<float>({5, 7})));
  manual_seed(3);
  const auto uniform = rand<float, Shard<0>, Shard<1>>(mesh, sizes);
  const auto normal = randn<float, Shard<1>, Shard<0>>(mesh, sizes);
  manual_seed(3);
  CHECK(is_piece_of(uniform, rand<float>({5, 7})));
  CHECK(is_piece_of(normal, randn<float>({5, 7})));

  const auto line = mesh.get<"tp">();
  const auto part = ones<float>({world.rank() % 2 == 0 ? 3 : 2, 7});
  const int rows = 5;
  CHECK(from_local<Shard<0>>(part, line, {.global_shape = {5, 7}}).shape() == sizes);
  CHECK(from_local<Shard<0>>(part, line, {.global_shape = {rows, 7}}).shape() == sizes);
  CHECK(from_local<Shard<0>>(part, line, {.global_shape = sizes}).shape() == sizes);
  CHECK(from_local<Shard<0>>(ones<float>({3}), line, {.global_shape = {6}}).shape() == Shape<1>{6});
  CHECK(from_local<Shard<0>>(ones<float>({3}), line, {.global_shape = {}}).shape() == Shape<1>{6});
  CHECK(contains(thrown<ShapeError>([&] { (void)from_local<Shard<0>>(part, line, {.global_shape = {9, 7}}); }),
                 "does not fit"));
}

SHARDWISE_TEST_RANKS("DM-3 from_local on two axes", 8) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 4});
  CHECK(from_local<Shard<0>, Shard<1>>(ones<float>({3, 3}), mesh).shape() == Shape<2>{6, 12});
  CHECK(from_local<Shard<0>, Shard<0>>(ones<float>({3, 3}), mesh).shape() == Shape<2>{24, 3});
}

SHARDWISE_TEST_RANKS("DM-4 from_local on three axes", 8) {
  const auto mesh = init_device_mesh<"dp", "pp", "tp">(world, {2, 2, 2});
  const auto local = ones<float>({3, 3, 3});
  CHECK(from_local<Shard<0>, Shard<1>, Shard<2>>(local, mesh).shape() == Shape<3>{6, 6, 6});
  CHECK(from_local<Shard<0>, Shard<0>, Shard<2>>(local, mesh).shape() == Shape<3>{12, 3, 6});
}

SHARDWISE_TEST_RANKS("DM-5 local offsets", 8) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 4});
  const std::int64_t r = world.rank();
  CHECK(zeros<float, Shard<0>, Replicate>(mesh, {24, 24}).local_offset() == Shape<2>{12 * (r / 4), 0});
  CHECK(zeros<float, Shard<1>, Replicate>(mesh, {24, 24}).local_offset() == Shape<2>{0, 12 * (r / 4)});
  CHECK(zeros<float, Replicate, Shard<0>>(mesh, {24, 24}).local_offset() == Shape<2>{6 * (r % 4), 0});
  CHECK(zeros<float, Replicate, Shard<1>>(mesh, {24, 24}).local_offset() == Shape<2>{0, 6 * (r % 4)});
}

SHARDWISE_TEST_RANKS("DM-6 DM-8 DM-9 tensors on ranks 0 and 2: outsiders stay empty and hold nobody up", 4) {
  const bool member = world.rank() % 2 == 0;
  const auto mesh = init_device_mesh<"tp">(world, {2}, {.ranks = {0, 2}});
  CHECK(mesh.is_member() == member);
  auto local = counting<float>({3, 4});
  local.requires_grad(true);
  const auto x = from_local<Shard<0>>(local, mesh, {.global_shape = Shape<2>{6, 4}});
  CHECK(x.shape() == Shape<2>{6, 4});
  CHECK(x.size() == (member ? 12 : 0));
  const auto y = redistribute<Replicate>(x);
  CHECK(y.size() == (member ? 24 : 0));
  const auto z = redistribute<Shard<0>>(y);
  CHECK(z.local_shape() == (member ? Shape<2>{3, 4} : Shape<2>{0, 0}));
  if (member) {
    CHECK(equal(detach(z).to_local(), detach(local)));
    backward(z, ones<float, Shard<0>>(mesh, {6, 4}));
    CHECK(all_are(local.grad(), 1));
  }
  const auto w = distribute_tensor<Shard<1>>(counting<float>({6, 4}), mesh);
  CHECK(w.full_tensor().size() == (member ? 24 : 0));
}

SHARDWISE_TEST_RANKS("RN-11 RN-12 a sharded random tensor is the dense one, whatever the placements", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto same = [&]<class... P>(auto&&, P...) {
    manual_seed(7);
    const auto dense = randn<float>({9, 10});
    const auto dense_uniform = rand<float>({9, 10});
    manual_seed(7);
    CHECK(is_piece_of(randn<float, P...>(mesh, {9, 10}), dense));
    CHECK(is_piece_of(rand<float, P...>(mesh, {9, 10}), dense_uniform));
  };
  same(0, Shard<0>(), Shard<1>());
  same(0, Shard<1>(), Shard<0>());
  same(0, Shard<0>(), Replicate());
  same(0, Replicate(), Shard<1>());
  same(0, Shard<0>(), Shard<0>());
  same(0, Shard<1>(), Shard<1>());
  same(0, Replicate(), Replicate());
  manual_seed(7);
  const auto first = rand<float>({100});
  CHECK(!equal(first, rand<float>({100})));
  manual_seed(8);
  CHECK(!equal(first, rand<float>({100})));
}

TEST_CASE("a plain tensor is its own part and its own whole") {
  const auto x = arange<float>(3);
  CHECK(x.to_local().data() == x.data());
  CHECK(x.full_tensor().data() == x.data());
}

TEST_CASE("arange counts in row-major order, by a shape or by a number") {
  const auto x = arange<float>({2, 3});
  CHECK(x.shape() == Shape<2>{2, 3});
  for (std::int64_t i = 0; i < 6; ++i) CHECK(x.data()[i] == static_cast<float>(i));
  CHECK(arange<std::int64_t>(4).shape() == Shape<1>{4});
  CHECK(equal(arange<double>({5}), arange<double>(5)));
}

TEST_CASE("more elements than any memory holds are refused, also where their number overflows to nothing") {
  constexpr std::int64_t large = std::int64_t(1) << 32;
  CHECK_THROWS_WITH_AS((void)zeros<float>({large, large}),
                       "shardwise::Tensor: [4294967296, 4294967296] has more elements than any memory holds",
                       ShapeError);
  CHECK_THROWS_AS((void)ones<std::uint8_t>({large, large, large}), ShapeError);
  CHECK(zeros<float>({large, 0, large}).size() == 0);
}
