// PyTorch's test_redistribute.py, row by row: values, sizes, gradients and collective counts.
#include <complex>

#include <shardwise/core.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

template <class T, int D, class Mesh>
void shard_to_replicate(const Mesh& mesh, std::int64_t rows, std::int64_t columns) {
  const auto whole = counting<T>({rows, columns});
  auto x = distribute_tensor<Shard<D>>(whole, mesh);
  x.requires_grad(true);
  const Counter forward;
  const auto y = redistribute<Replicate>(x);
  CHECK(forward.total == 1);
  CHECK(forward.count(Collective::all_gather) == 1);
  CHECK(equal(detach(y).to_local(), whole));
  const Counter backwards;
  backward(y, ones<T, Replicate>(mesh, {rows, columns}));
  CHECK(backwards.total == 0);
  CHECK(x.grad().local_shape() == x.local_shape());
  CHECK(all_are(x.grad(), 1));
}

template <class T, int D, class Mesh>
void replicate_to_shard(const Mesh& mesh, std::int64_t rows, std::int64_t columns) {
  auto x = distribute_tensor<Replicate>(counting<T>({rows, columns}), mesh);
  x.requires_grad(true);
  const Counter forward;
  const auto y = redistribute<Shard<D>>(x);
  CHECK(forward.total == 0);
  CHECK(equal(detach(y).to_local(),
              distribute_tensor<Shard<D>>(detach(x).to_local(), mesh, {.src_data_rank = no_source}).to_local()));
  const Counter backwards;
  backward(y, ones<T, Shard<D>>(mesh, {rows, columns}));
  CHECK(backwards.total == 1);
  CHECK(backwards.count(Collective::all_gather) == 1);
  CHECK(x.grad().size() == rows * columns);
  CHECK(all_are(x.grad(), 1));
}

template <class T, int D, class Mesh>
void partial_to_shard(const Mesh& mesh, std::int64_t rows, std::int64_t columns) {
  const auto x = from_local<Partial<>>(ones<T>({rows, columns}), mesh);
  const Counter forward;
  const auto y = redistribute<Shard<D>>(x);
  CHECK(forward.total == 1);
  CHECK(forward.count(Collective::reduce_scatter) == 1);
  CHECK(y.local_shape() == zeros<T, Shard<D>>(mesh, {rows, columns}).local_shape());
  CHECK(all_are(y, 4));
}

}  // namespace

SHARDWISE_TEST_RANKS("RD-1 shard to replicate: one all_gather, backward is local", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t n : {12, 13, 14}) {
    shard_to_replicate<float, 0>(mesh, n, 3);
    shard_to_replicate<float, 1>(mesh, 3, n);
    shard_to_replicate<std::complex<float>, 1>(mesh, 3, n);
  }
}

SHARDWISE_TEST_RANKS("RD-2 RD-3 the same placement is the same tensor, without communication", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Replicate>(ones<float>({12, 3}), mesh);
  x.requires_grad(true);
  const auto term = from_local<Partial<>>(counting<float>({4, 3}), mesh);
  const Counter counter;
  const auto y = redistribute<Replicate>(x);
  backward(y, ones<float, Replicate>(mesh, {12, 3}));
  CHECK(all_are(x.grad(), 1));
  CHECK(redistribute<Partial<>>(term).data() == term.data());
  CHECK(redistribute<Shard<1>>(redistribute<Shard<-1>>(x)).local_shape() == redistribute<Shard<1>>(x).local_shape());
  CHECK(counter.total == 0);
}

SHARDWISE_TEST_RANKS("RD-5 replicate to shard: local, backward is one all_gather", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t n : {12, 13, 14}) {
    replicate_to_shard<float, 0>(mesh, n, 3);
    replicate_to_shard<float, 1>(mesh, 3, n);
  }
}

SHARDWISE_TEST_RANKS("RD-6 partial to replicate: one all_reduce, the gradient is not divided", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto local = ones<float>({12, 3});
  local.requires_grad(true);
  const auto x = from_local<Partial<>>(local, mesh);
  const Counter forward;
  const auto y = redistribute<Replicate>(x);
  CHECK(forward.total == 1);
  CHECK(forward.count(Collective::all_reduce) == 1);
  CHECK(all_are(y, 4));
  const Counter backwards;
  backward(y, ones<float, Replicate>(mesh, {12, 3}));
  CHECK(backwards.total == 0);
  CHECK(all_are(local.grad(), 1));
}

SHARDWISE_TEST_RANKS("RD-10 partial to shard: one reduce_scatter, chunk sizes", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t n : {12, 13, 14}) {
    partial_to_shard<float, 0>(mesh, n, 3);
    partial_to_shard<float, 1>(mesh, 3, n);
    partial_to_shard<std::complex<float>, 0>(mesh, n, 3);
  }
}

SHARDWISE_TEST_RANKS("RD-11 gathering a later dimension, below one index or several, is one all_gather", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto gather = [&]<class P>(const auto& whole, P) {
    const auto x = distribute_tensor<P, P>(whole, mesh);
    const Counter counter;
    const auto y = redistribute<P, Replicate>(x);
    CHECK(counter.total == 1);
    CHECK(counter.count(Collective::all_gather) == 1);
    CHECK(equal(y.to_local(), distribute_tensor<P, Replicate>(whole, mesh).to_local()));
  };
  gather(counting<float>({1, 16, 12}), Shard<1>());
  gather(counting<float>({1, 16, 12}), Shard<2>());
  gather(counting<float>({4, 16, 12}), Shard<1>());
}

SHARDWISE_TEST_RANKS("RD-12 a negative shard dimension is reported counted from the front", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = distribute_tensor<Replicate>(counting<float>({3, 12}), mesh);
  const auto y = redistribute<Shard<-1>>(x);
  static_assert(decltype(y)::placements[0] == placement_value<Shard<1>>);
  CHECK(y.local_shape() == Shape<2>{3, 3});
}

SHARDWISE_TEST_RANKS("RD-13 replicate to shard to replicate gives the tensor", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto there_and_back = [&]<class P>(const auto& whole, P) {
    const auto x = distribute_tensor<Replicate>(whole, mesh);
    CHECK(equal(redistribute<Replicate>(redistribute<P>(x)).to_local(), whole));
  };
  for (const std::int64_t n : {13, 14, 15}) there_and_back(counting<float>({4, n, 8}), Shard<1>());
  there_and_back(counting<float>({3, 31, 10}), Shard<1>());
  there_and_back(counting<float>({4, 8, 13}), Shard<2>());
  there_and_back(counting<float>({13, 8}), Shard<0>());
  there_and_back(counting<float>({8, 13}), Shard<1>());
}

SHARDWISE_TEST_RANKS("RD-14 uneven shards on two axes gather to the input", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const std::int64_t shapes[][2] = {{10, 5}, {9, 5}, {3, 5}, {1, 3}};
  for (const auto& shape : shapes) {
    const auto whole = counting<float>(shape);
    CHECK(equal(distribute_tensor<Shard<0>, Shard<0>>(whole, mesh).full_tensor(), whole));
    CHECK(equal(distribute_tensor<Shard<0>, Shard<1>>(whole, mesh).full_tensor(), whole));
  }
}

SHARDWISE_TEST_RANKS("RD-15 from one sharded dimension to another: one all_to_all, there and back", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const std::int64_t shapes[][2] = {{8, 8}, {8, 5}, {5, 8}, {5, 5}};
  for (const auto& shape : shapes) {
    const auto whole = counting<float>(shape);
    const auto rows = distribute_tensor<Shard<0>>(whole, mesh);
    const Counter counter;
    const auto columns = redistribute<Shard<1>>(rows);
    CHECK(counter.total == 1);
    CHECK(counter.count(Collective::all_to_all) == 1);
    CHECK(equal(columns.to_local(), distribute_tensor<Shard<1>>(whole, mesh).to_local()));
    CHECK(equal(redistribute<Shard<0>>(columns).to_local(), rows.to_local()));
  }
}

SHARDWISE_TEST_RANKS("RD-17 an exchange along the first axis of two, where places on the axis are not world ranks", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto whole = counting<float>({5, 7});
  const auto rows = distribute_tensor<Shard<0>, Replicate>(whole, mesh);
  const Counter counter;
  const auto columns = redistribute<Shard<1>, Replicate>(rows);
  CHECK(counter.total == 1);
  CHECK(counter.count(Collective::all_to_all) == 1);
  CHECK(columns.local_shape() == Shape<2>{5, world.rank() < 2 ? 4 : 3});
  CHECK(equal(columns.to_local(), distribute_tensor<Shard<1>, Replicate>(whole, mesh).to_local()));
}

SHARDWISE_TEST_RANKS("RD-18 an axis of one rank relabels without communication", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {4, 1});
  const auto x = distribute_tensor<Shard<0>, Replicate>(counting<float>({9, 5}), mesh);
  const auto term = from_local<Shard<0>, Partial<>>(x.to_local(), mesh, {.global_shape = Shape<2>{9, 5}});
  const Counter counter;
  const auto as = [&](const auto& y) {
    CHECK(equal(y.to_local(), x.to_local()));
    CHECK(equal(redistribute<Shard<0>, Shard<0>>(y).to_local(), x.to_local()));
    CHECK(equal(redistribute<Shard<0>, Shard<1>>(y).to_local(), x.to_local()));
    CHECK(equal(redistribute<Shard<0>, Replicate>(y).to_local(), x.to_local()));
  };
  as(x);
  as(term);
  as(redistribute<Shard<0>, Shard<1>>(x));
  CHECK(counter.total == 0);
}

SHARDWISE_TEST_RANKS("RD-22 shards of size zero", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto whole = counting<float>({2, 8});
  const auto x = distribute_tensor<Shard<0>>(whole, mesh);
  CHECK(x.local_shape() == Shape<2>{world.rank() < 2 ? 1 : 0, 8});
  CHECK(equal(redistribute<Replicate>(x).to_local(), whole));
  CHECK(redistribute<Shard<1>>(x).local_shape() == Shape<2>{2, 2});
  CHECK(equal(redistribute<Shard<1>>(x).full_tensor(), whole));
}

SHARDWISE_TEST_RANKS("RD-24 all pairs of placements on (4, 2), whatever the ranks but the source hold", 8) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {4, 2});
  Failures failures;
  const PlacementValue R = detail::replicate_value(), S0 = detail::shard_value(0), S1 = detail::shard_value(1),
                       P = detail::partial_value();
  for (const PlacementValue& f0 : {R, S0, S1, P})
    for (const PlacementValue& f1 : {R, S0, S1, P})
      for (const PlacementValue& t0 : {R, S0, S1})
        for (const PlacementValue& t1 : {R, S0, S1})
          check<float>(mesh, {{4, 2}, {16, 24}, {f0, f1}, {t0, t1}, 1}, failures);
  CHECK(failures.count() == 0);
  const auto whole = counting<float>({16, 24});
  const auto own = world.rank() == 0 ? whole : full<float>({16, 24}, -1.0f);
  const auto x = distribute_tensor<Shard<1>, Shard<0>>(own, mesh);
  CHECK(equal(x.full_tensor(), whole));
  CHECK(equal(redistribute<On<"tp", Replicate>>(x).full_tensor(), whole));
  CHECK(equal(redistribute<Replicate, Shard<0>>(x).full_tensor(), whole));
  CHECK(equal(distribute_tensor<Partial<>, Shard<0>>(own, mesh).full_tensor(), whole));
}

SHARDWISE_TEST_RANKS("redistribute_into writes into the memory that it is given, and refuses to lose a gradient", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto whole = counting<float>({5, 7});
  auto x = distribute_tensor<Shard<0>>(whole, mesh);
  auto out = zeros<float, Shard<1>>(mesh, {5, 7});
  const float* memory = out.data();
  redistribute_into(x, out);
  redistribute_into(x, out);
  CHECK(out.data() == memory);
  CHECK(equal(out.full_tensor(), whole));
  auto other = zeros<float, Shard<1>>(mesh, {7, 5});
  CHECK(contains(thrown<ShapeError>([&] { redistribute_into(x, other); }), "[7, 5]"));
  x.requires_grad(true);
  CHECK(contains(thrown<Error>([&] { redistribute_into(x, out); }), "a gradient would have to be recorded"));
  const NoGrad guard;
  redistribute_into(x, out);
  CHECK(out.data() == memory);
}

TEST_CASE("a throw on one rank reaches the others, with its message") {
  std::atomic<int> told{0};
  CHECK_THROWS_WITH_AS(run_ranks(4,
                                 [&](ThreadCommunicator world) {
                                   const auto mesh = init_device_mesh<"tp">(world, {4});
                                   const auto x = from_local<Partial<>>(ones<float>({2, 2}), mesh);
                                   if (world.rank() == 2) throw std::runtime_error("out of cheese");
                                   try {
                                     (void)redistribute<Replicate>(x);
                                   } catch (const PeerFailedError& e) {
                                     if (contains(e.what(), "out of cheese")) ++told;
                                     throw;
                                   }
                                 }),
                       "out of cheese", std::runtime_error);
  CHECK(told == 3);
}

TEST_CASE("parts whose sizes disagree are a MismatchError at the first collective, an empty one too") {
  for (const std::int64_t rows : {5, 6, 13}) {
    std::atomic<int> told{0};
    CHECK_THROWS_AS(run_ranks(4,
                              [&](ThreadCommunicator world) {
                                const auto mesh = init_device_mesh<"tp">(world, {4});
                                const std::int64_t length = (rows + 3) / 4;
                                const std::int64_t left = rows - world.rank() * length;
                                const std::int64_t mine = left < 0 ? 0 : left < length ? left : length;
                                const auto x = from_local<Shard<0>>(ones<float>({mine, 3}), mesh);
                                try {
                                  (void)x.full_tensor();
                                } catch (const MismatchError&) {
                                  ++told;
                                  throw;
                                }
                              }),
                    MismatchError);
    CHECK(told == 4);
  }
}

SHARDWISE_TEST_RANKS("RD-55 pending sums on two or three axes, a shard between them too, are settled in one collective",
                     8) {
  const auto mesh = init_device_mesh<"a", "b", "c">(world, {2, 2, 2});
  const auto settle = [&](const auto& x, const Shape<2>& shape, float value) {
    const Counter counter;
    const auto y = redistribute<Replicate, Replicate, Replicate>(x);
    CHECK(counter.total == 1);
    CHECK(y.local_shape() == shape);
    CHECK(all_are(y, value));
  };
  const auto part = ones<float>({8, 8});
  settle(from_local<Partial<>, Partial<>, Partial<>>(part, mesh), {8, 8}, 8);
  settle(from_local<Partial<>, Partial<>, Replicate>(part, mesh), {8, 8}, 4);
  settle(from_local<Partial<>, Replicate, Partial<>>(part, mesh), {8, 8}, 4);
  settle(from_local<Partial<>, Shard<0>, Partial<>>(part, mesh), {16, 8}, 4);
}
