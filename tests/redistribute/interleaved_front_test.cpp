// Block-cyclic and strided tensors through every public function that takes placements: factories, ways in and out, operators,
// gradients, several at once and in the background.
#include <shardwise/core.hpp>
#include <shardwise/io/print.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/ops/shape.hpp>
#include <shardwise/ops/softmax.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/async.hpp>
#include <shardwise/testing/doctest.hpp>

#include <complex>

#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

using BC = BlockCyclic<0, 2>;
using SS = StridedShard<1, 3>;

// The rank's part of a plain tensor, index by index.
template <class X>
Tensor<typename X::value_type, 2> part_of(const X& x, const Tensor<typename X::value_type, 2>& whole) {
  Tensor<typename X::value_type, 2> part(x.local_shape());
  for (std::int64_t i = 0; i < x.local_shape()[0]; ++i)
    for (std::int64_t j = 0; j < x.local_shape()[1]; ++j)
      part.data()[i * x.local_shape()[1] + j] =
          whole.data()[x.global_index(0, i) * whole.shape()[1] + x.global_index(1, j)];
  return part;
}

}  // namespace

SHARDWISE_TEST_RANKS("types and values: dimensions from the end, names, gradients, transitions", 1) {
  static_assert(std::is_same_v<Normalized<BlockCyclic<-1, 4>, 3>, BlockCyclic<2, 4>>);
  static_assert(std::is_same_v<Normalized<StridedShard<-2, 5>, 2>, StridedShard<0, 5>>);
  static_assert(std::is_same_v<GradientPlacement<BC>, BC> && std::is_same_v<GradientPlacement<SS>, SS>);
  static_assert(std::is_same_v<detail::placement_type<detail::placement_code(placement_value<BlockCyclic<7, 1 << 20>>)>,
                               BlockCyclic<7, 1 << 20>>);
  static_assert(placement_value<BlockCyclic<0, 2>> != placement_value<BlockCyclic<0, 3>>);
  static_assert(placement_value<BlockCyclic<0, 2>> != placement_value<StridedShard<0, 2>>);
  static_assert(transition<Partial<>, BC>::collective == Collective::reduce_scatter);
  static_assert(transition<BC, Replicate>::collective == Collective::all_gather);
  static_assert(transition<BC, Replicate>::backward_pending == Collective::reduce_scatter);
  static_assert(transition<BC, BlockCyclic<0, 3>>::collective == Collective::all_to_all);
  static_assert(!shard_dim_in_range<BlockCyclic<2, 1>, 2> && !shard_dim_in_range<StridedShard<-3, 1>, 2>);
  CHECK(detail::to_string(placement_value<BlockCyclic<1, 64>>) == "BC(1,64)");
  CHECK(detail::to_string(placement_value<StridedShard<0, 2>>) == "SS(0,2)");
  const auto mesh = init_device_mesh<"tp">(world, {1});
  CHECK(contains(to_string(zeros<float, BlockCyclic<0, 2>>(mesh, {1, 1})), "tp=BlockCyclic<0, 2>"));
}

SHARDWISE_TEST_RANKS("zeros, ones, full, rand and randn: the one-device tensor, part by part", 6) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
  CHECK(all_are(ones<float, BC, SS>(mesh, {7, 10}), 1));
  CHECK(equal(full<float, BC, SS>(mesh, {7, 10}, 3.0f).full_tensor(), full<float>({7, 10}, 3.0f)));
  manual_seed(5);
  const auto one = rand<float>({7, 10});
  const auto normal = randn<double>({7, 10});
  manual_seed(5);
  const auto x = rand<float, BC, SS>(mesh, {7, 10});
  const auto y = randn<double, SS, BlockCyclic<1, 2>>(mesh, {7, 10});
  CHECK(equal(x.to_local(), part_of(x, one)));
  CHECK(equal(x.full_tensor(), one));
  CHECK(equal(y.to_local(), part_of(y, normal)));
  CHECK(equal(y.full_tensor(), normal));
}

SHARDWISE_TEST_RANKS("distribute_tensor from one rank, from_local and to_local, uneven and empty parts", 6) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
  for (const std::int64_t rows : {0, 1, 3, 8, 9}) {
    Tensor<float, 2> whole(Shape<2>{rows, 5});
    for (std::int64_t i = 0; i < whole.size(); ++i) whole.data()[i] = static_cast<float>(i + 1);
    const auto garbage = world.rank() == 0 ? whole : detach(full<float>(Shape<2>{rows, 5}, -7.0f));
    const auto x = distribute_tensor<BC, SS>(garbage, mesh);
    CHECK(equal(x.to_local(), part_of(x, whole)));
    CHECK(equal(x.full_tensor(), whole));
    const auto again = from_local<BC, SS>(x.to_local(), mesh);  // knows the size that it came from
    CHECK(again.shape() == x.shape());
    const auto told = from_local<BC, SS>(clone(x).to_local(), mesh, {.global_shape = Shape<2>{rows, 5}});
    CHECK(equal(told.full_tensor(), whole));
    const auto none = distribute_tensor<BC, SS>(whole, mesh, {.src_data_rank = no_source});
    CHECK(equal(none.to_local(), x.to_local()));
  }
  const std::string message = thrown<ShapeError>(
      [&] { (void)from_local<BC, SS>(ones<float>({9, 9}), mesh, {.global_shape = Shape<2>{8, 6}}); });
  CHECK(contains(message, "BC(0,2)SS(1,3)"));
  CHECK(contains(thrown<ShapeError>([&] { (void)zeros<float, BC, SS>(mesh, {2, 3}).global_index(0, 2); }),
                 "no position 2 in dimension 0"));
}

SHARDWISE_TEST_RANKS("moves of the typed front, into memory of the caller, of one axis", 6) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
  const auto whole = counting<float>({9, 11});
  const auto x = distribute_tensor<BC, SS>(whole, mesh);
  CHECK(equal(redistribute<Shard<1>, Shard<0>>(x).full_tensor(), whole));
  CHECK(equal(redistribute<On<"tp", Replicate>>(x).to_local(), part_of(redistribute<BC, Replicate>(x), whole)));
  const auto y = redistribute<BlockCyclic<0, 3>, BlockCyclic<0, 2>>(x);  // nested in one dimension
  CHECK(equal(y.to_local(), part_of(y, whole)));
  CHECK(redistribute<BC, SS>(x).data() == x.data());
  auto out = zeros<float, Shard<0>, BlockCyclic<1, 4>>(mesh, {9, 11});
  redistribute_into(x, out);
  CHECK(equal(out.full_tensor(), whole));
  const Counter counter;
  const auto cut =
      redistribute<BC, SS>(distribute_tensor<Replicate, Replicate>(whole, mesh, {.src_data_rank = no_source}));
  CHECK(counter.total == 0);
  CHECK(equal(cut.to_local(), x.to_local()));
}

SHARDWISE_TEST_RANKS("several tensors in one exchange, and in the background", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto a = distribute_tensor<BlockCyclic<0, 2>>(counting<float>({9, 3}), mesh);
  const auto b = distribute_tensor<Shard<1>>(counting<double>({5, 70}), mesh);
  const Counter counter;
  const auto [x, y] = redistribute_all(to<Replicate>(a), to<BlockCyclic<1, 4>>(b));
  CHECK(counter.total == 1);
  CHECK(equal(x.to_local(), counting<float>({9, 3})));
  CHECK(equal(y.to_local(), part_of(y, counting<double>({5, 70}))));
  const auto z = redistribute_async<StridedShard<0, 2>>(a).wait();
  CHECK(equal(z.to_local(), part_of(z, counting<float>({9, 3}))));
}

SHARDWISE_TEST_RANKS("elementwise operators, sums over a dimension and transposes keep the parts where they are", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto whole = counting<float>({7, 3});
  const auto x = distribute_tensor<BC>(whole, mesh);
  const Counter counter;
  const auto y = x * x + x;
  static_assert(std::is_same_v<decltype(y), const std::remove_const_t<decltype(x)>>);
  const auto rows = sum<1>(x);
  const auto columns = sum<0>(x);
  const auto total = sum(x);
  const auto turned = transpose<0, 1>(x);
  const auto soft = softmax<1>(x);
  CHECK(counter.total == 0);
  CHECK(equal(y.full_tensor(), whole * whole + whole));
  CHECK(equal(rows.full_tensor(), sum<1>(whole)));
  CHECK(equal(columns.full_tensor(), sum<0>(whole)));
  CHECK(total.full_tensor().item() == sum(whole).item());
  CHECK(equal(turned.full_tensor(), transpose<0, 1>(whole)));
  CHECK(allclose(soft.full_tensor(), softmax<1>(whole)));
  manual_seed(3);
  const auto one = dropout(whole, 0.5);
  manual_seed(3);
  CHECK(equal(dropout(x, 0.5).full_tensor(), one));
}

SHARDWISE_TEST_RANKS("gradients through moves, pending ones settled once, averages divided", 6) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
  const auto whole = counting<float>({7, 5});
  auto x = distribute_tensor<BC, SS>(whole, mesh);
  x.requires_grad(true);
  const auto y = redistribute<Shard<0>, BlockCyclic<1, 2>>(x);
  backward(sum(y * y));
  for (std::int64_t i = 0; i < x.size(); ++i) CHECK(x.grad().data()[i] == 2 * x.data()[i]);

  auto local = detach(whole);
  local.requires_grad(true);
  const auto cut = redistribute<BC, Replicate>(from_local<Partial<Avg>, Replicate>(local, mesh));
  const Counter counter;
  backward(to_local<BC, Partial<>>(cut), ones<float>(cut.local_shape()));
  CHECK(counter.total <= 2);
  CHECK(all_are(local.grad(), 1.5));  // three terms on tp, half of each on dp

  auto z = distribute_tensor<Replicate, BC>(whole, mesh);
  z.requires_grad(true);
  auto part = z.to_local();
  backward(to_local<Partial<>, BC>(from_local<Replicate, BC>(part, mesh)), ones<float>(part.shape()));
  CHECK(all_are(z.grad(), 2));
}

SHARDWISE_TEST_RANKS("outputs beyond the caches: runs that are streamed, copied and summed", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {3});
  const auto value = [](std::int64_t i, std::int64_t j) { return static_cast<float>((i * 31 + j * 17) % 1021); };
  const auto wrong = [&](const auto& x, float factor) {
    std::int64_t n = 0;
    for (std::int64_t i = 0; i < x.local_shape()[0]; ++i)
      for (std::int64_t j = 0; j < x.local_shape()[1]; ++j) {
        const std::int64_t row = i + (x.local_shape()[0] < 1030 ? 344 * world.rank() : 0);
        const std::int64_t column = x.local_shape()[1] < 4100 ? (j / 64 * 3 + world.rank()) * 64 + j % 64 : j;
        if (x.data()[i * x.local_shape()[1] + j] != factor * value(row, column)) ++n;
      }
    return n;
  };
  Tensor<float, 2> whole(Shape<2>{1030, 4100});
  for (std::int64_t i = 0; i < 1030; ++i)
    for (std::int64_t j = 0; j < 4100; ++j) whole.data()[i * 4100 + j] = value(i, j);
  const auto cyclic = redistribute<BlockCyclic<1, 64>>(from_local<Partial<>>(whole, mesh));
  CHECK(wrong(cyclic, 3) == 0);
  const auto rows = redistribute<Shard<0>>(cyclic);
  CHECK(wrong(rows, 3) == 0);
  const auto back = redistribute<BlockCyclic<1, 64>>(rows);
  CHECK(wrong(back, 3) == 0);
}
