// What moves, from_local and to_local do to gradients: PyTorch's tables, the pending bit, one reduction for many uses.
#include <shardwise/core.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"

using namespace shardwise;
using namespace test;

namespace {

Tensor<float, 2> leaf(Tensor<float, 2> x) {
  x.requires_grad(true);
  return x;
}

}  // namespace

SHARDWISE_TEST_RANKS("DT-5 from_local: shards multiply the size, the local part is shared, a leaf's part is no leaf",
                     4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = counting<float>({3, 3});
  CHECK(from_local<Shard<0>>(local, mesh).shape() == Shape<2>{12, 3});
  CHECK(from_local<Replicate>(local, mesh).shape() == Shape<2>{3, 3});
  CHECK(from_local<Partial<>>(local, mesh).shape() == Shape<2>{3, 3});
  CHECK(from_local<Shard<0>>(local, mesh).data() == local.data());
  CHECK(from_local<Shard<0>>(local, mesh).is_leaf());
  const auto wanted = leaf(counting<float>({3, 3}));
  const auto x = from_local<Shard<0>>(wanted, mesh);
  CHECK(!x.is_leaf());
  CHECK(x.requires_grad());
  backward(x, full<float, Shard<0>>(mesh, {12, 3}, 9.0f));
  CHECK(all_are(wanted.grad(), 9));
}

SHARDWISE_TEST_RANKS("DT-6 gradients of from_local by placement and kind of gradient", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto two = full<float>({3, 3}, 2.0f);
  {  // a shard: its own gradient
    const auto local = leaf(ones<float>({3, 3}));
    const auto y = to_local<>(from_local<Shard<0>>(local, mesh));
    const Counter counter;
    backward(y, two);
    CHECK(counter.total == 0);
    CHECK(all_are(local.grad(), 2));
  }
  {  // replicated, complete gradient
    const auto local = leaf(ones<float>({3, 3}));
    const auto y = to_local<>(from_local<Replicate>(local, mesh));
    const Counter counter;
    backward(y, two);
    CHECK(counter.total == 0);
    CHECK(all_are(local.grad(), 2));
  }
  {  // replicated, pending gradient
    const auto local = leaf(ones<float>({3, 3}));
    const auto y = to_local<Partial<>>(from_local<Replicate>(local, mesh));
    const Counter counter;
    backward(y, two);
    CHECK(counter.total == 1);
    CHECK(counter.count(Collective::all_reduce) == 1);
    CHECK(all_are(local.grad(), 8));
  }
  {  // pending value, pending gradient
    const auto local = leaf(ones<float>({3, 3}));
    const auto y = to_local<Partial<>>(from_local<Partial<>>(local, mesh));
    const Counter counter;
    backward(y, two);
    CHECK(counter.count(Collective::all_reduce) == 1);
    CHECK(all_are(local.grad(), 8));
  }
  {  // pending value, complete gradient
    const auto local = leaf(ones<float>({3, 3}));
    const auto y = to_local<>(from_local<Partial<>>(local, mesh));
    const Counter counter;
    backward(y, two);
    CHECK(counter.total == 0);
    CHECK(all_are(local.grad(), 2));
  }
}

SHARDWISE_TEST_RANKS("DT-7 the pending gradient of a leaf stays pending, and reading it says what to do", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Replicate>(ones<float>({3, 3}), mesh);
  x.requires_grad(true);
  const Counter counter;
  backward(to_local<Partial<>>(x), full<float>({3, 3}, 2.0f));
  CHECK(counter.total == 0);
  CHECK(x.has_grad());
  CHECK(contains(thrown<Error>([&] { (void)x.grad(); }), "settle_gradients(parameters(model))"));
}

SHARDWISE_TEST_RANKS("RD-4 from_local, replicate, to_local with a pending gradient: one all_reduce in all", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(ones<float>({3, 3}));
  const Counter counter;
  const auto x = redistribute<Replicate>(from_local<Replicate>(local, mesh));
  backward(to_local<Partial<>>(x), ones<float>({3, 3}));
  CHECK(counter.total == 1);
  CHECK(counter.count(Collective::all_reduce) == 1);
  CHECK(all_are(local.grad(), 4));
}

SHARDWISE_TEST_RANKS("DT-8 DT-9 from_local of uneven shards takes the shape, and refuses parts that do not fit", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const std::int64_t rows[] = {2, 2, 1, 0};
  const std::int64_t mine = rows[world.rank()];
  const auto x = from_local<Shard<0>>(ones<float>({mine, 2}), mesh, {.global_shape = Shape<2>{5, 2}});
  CHECK(x.shape() == Shape<2>{5, 2});
  CHECK(equal(x.full_tensor(), ones<float>({5, 2})));
  const std::string message = thrown<ShapeError>(
      [&] { (void)from_local<Shard<0>>(ones<float>({mine + 1, 2}), mesh, {.global_shape = Shape<2>{5, 2}}); });
  CHECK(contains(message, "[5, 2]"));
  CHECK(contains(message, "[" + std::to_string(mine) + ", 2]"));
  CHECK(contains(message, "rank " + std::to_string(world.rank())));
}

SHARDWISE_TEST_RANKS("DT-10 from_local with a negative dimension", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = from_local<Shard<-1>>(ones<float>({3, 3}), mesh);
  static_assert(decltype(x)::placements[0] == placement_value<Shard<1>>);
  CHECK(x.shape() == Shape<2>{3, 12});
}

SHARDWISE_TEST_RANKS("DT-11 to_local shares its elements and passes the gradient on", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Shard<0>>(counting<float>({12, 3}), mesh);
  x.requires_grad(true);
  CHECK(x.to_local().data() == x.data());
  {
    const NoGrad guard;
    CHECK(!x.to_local().requires_grad());
    CHECK(x.to_local().data() == x.data());
  }
  backward(x.to_local(), full<float>({3, 3}, 3.0f));
  CHECK(all_are(x.grad(), 3));
}

SHARDWISE_TEST_RANKS("DT-12 DT-14 a gradient declared pending: all_gather forward, reduce_scatter backward", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Shard<0>>(counting<float>({8, 3}), mesh);
  x.requires_grad(true);
  const Counter forward;
  const auto y = to_local<Partial<>>(redistribute<Replicate>(x));
  CHECK(forward.total == 1);
  CHECK(forward.count(Collective::all_gather) == 1);
  const Counter backwards;
  backward(y, ones<float>({8, 3}));
  CHECK(backwards.total == 1);
  CHECK(backwards.count(Collective::reduce_scatter) == 1);
  CHECK(equal(x.grad().full_tensor(), full<float>({8, 3}, 4.0f)));
}

SHARDWISE_TEST_RANKS("DT-13 full_tensor is a plain tensor, and one of a plain tensor itself", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto whole = counting<float>({5, 3});
  const auto full = distribute_tensor<Shard<1>>(whole, mesh).full_tensor();
  static_assert(std::is_same_v<std::remove_const_t<decltype(full)>, Tensor<float, 2>>);
  CHECK(equal(full, whole));
  CHECK(full.full_tensor().data() == full.data());
}

SHARDWISE_TEST_RANKS(
    "DT-15 a sum that leaves as a plain tensor and returns as a term: the gradient is 1, not the rank count", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Partial<>>(full<float>({1}, 10.0f), mesh, {.src_data_rank = 0});
  x.requires_grad(true);
  const auto total = redistribute<Replicate>(from_local<Partial<>>(x.to_local(), mesh));
  CHECK(detach(total).item() == 10.0f);
  backward(total, ones<float, Replicate>(mesh, {1}));
  CHECK(x.grad().item() == 1.0f);
}

SHARDWISE_TEST_RANKS("DT-18 gradients go through both wrappers", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(ones<float>({3, 3}));
  backward(from_local<Shard<0>>(local, mesh).to_local(), full<float>({3, 3}, 6.0f));
  CHECK(all_are(local.grad(), 6));
}

SHARDWISE_TEST_RANKS("three uses of one plain tensor are one node of the tape, and one all_reduce", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {1, 4});
  const auto local = leaf(ones<float>({3, 3}));
  const auto a = to_local<Partial<>>(from_local<Replicate>(local, mesh.get<"tp">()));
  const auto b = to_local<Partial<>>(from_local<Replicate>(local, mesh.get<"tp">()));
  const auto c = to_local<Partial<>>(from_local<Replicate>(local, mesh.get<"tp">()));
  // One value that depends on all three: a test's own node.
  struct AddNode final : detail::Node {
    AddNode() : Node("add") {}
    void backward(detail::GradSlot& out) override {
      for (auto& input : inputs) detail::accumulate(*input, out.grad, 0);
    }
  };
  auto sum = zeros<float>({3, 3});
  auto node = detail::make_ref<AddNode>();
  for (const auto* x : {&a, &b, &c}) node->inputs.push_back(x->impl()->slot);
  detail::record(sum, std::move(node));
  const Counter counter;
  backward(sum, full<float>({3, 3}, static_cast<float>(world.rank())));
  CHECK(counter.total == 1);
  CHECK(counter.count(Collective::all_reduce) == 1);
  CHECK(all_are(local.grad(), 3 * (0 + 1 + 2 + 3)));
  // The run is over: what is made now is a new node.
  backward(to_local<Partial<>>(from_local<Replicate>(local, mesh.get<"tp">())), ones<float>({3, 3}));
  CHECK(all_are(local.grad(), 18 + 4));
}

SHARDWISE_TEST_RANKS("a complete contribution joins a pending sum once", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(ones<float>({3, 3}));
  const auto x = from_local<Replicate>(local, mesh);
  struct AddNode final : detail::Node {
    AddNode() : Node("add") {}
    void backward(detail::GradSlot& out) override {
      for (auto& input : inputs) detail::accumulate(*input, out.grad, 0);
    }
  };
  const auto pending = to_local<Partial<>>(x);
  const auto complete = to_local<>(x);
  for (const bool pending_first : {true, false}) {
    auto sum = zeros<float>({3, 3});
    auto node = detail::make_ref<AddNode>();
    node->inputs = {pending.impl()->slot, complete.impl()->slot};
    if (!pending_first) std::swap(node->inputs[0], node->inputs[1]);
    detail::record(sum, std::move(node));
    if (!pending_first) break;
    backward(sum, ones<float>({3, 3}));
    CHECK(all_are(local.grad(), 4 + 1));
  }
}

SHARDWISE_TEST_RANKS("an average divides its gradient by the ranks averaged over", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto local = leaf(counting<float>({3, 4}));
  const auto x = from_local<Partial<Avg>>(local, mesh);
  const auto y = redistribute<Replicate>(x);
  CHECK(equal(detach(y).to_local(), local));
  backward(y, full<float, Replicate>(mesh, {3, 4}, 8.0f));
  CHECK(all_are(local.grad(), 2));
  const auto z = redistribute<Shard<0>>(from_local<Partial<Avg>>(local, mesh));
  const Counter counter;
  backward(z, full<float, Shard<0>>(mesh, {3, 4}, 4.0f));
  CHECK(counter.count(Collective::all_gather) == 1);
  CHECK(counter.total == 1);
  CHECK(all_are(local.grad(), 3));
}

SHARDWISE_TEST_RANKS("a maximum has no gradient, and says so before anything moves", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = from_local<Partial<Max>>(leaf(counting<float>({3, 4})), mesh);
  CHECK(contains(thrown<Error>([&] { (void)redistribute<Replicate>(x); }), "detach(x) or use NoGrad"));
  CHECK(equal(redistribute<Replicate>(detach(x)).to_local(), counting<float>({3, 4})));
}

SHARDWISE_TEST_RANKS("a gradient without elements flows on every rank, from memory that is none", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = distribute_tensor<Replicate>(counting<float>({2, 3}), mesh);
  x.requires_grad(true);
  const auto y = redistribute<Shard<0>>(x);  // 1, 1, 0, 0 rows
  std::vector<float> memory(static_cast<std::size_t>(y.size()), 5.0f);
  const auto part = Tensor<float, 2>::view(memory.empty() ? nullptr : memory.data(), y.local_shape());
  backward(y, from_local<Shard<0>>(part, mesh, {.global_shape = Shape<2>{2, 3}}));
  CHECK(all_are(x.grad(), 5));
}

SHARDWISE_TEST_RANKS("the backward of a typed move is its adjoint, on two axes and with pending gradients", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto inner = [&](const auto& a, const auto& b) {  // of sharded or of whole plain tensors
    double sum = 0;
    for (std::int64_t i = 0; i < a.size(); ++i)
      sum += static_cast<double>(a.data()[i]) * static_cast<double>(b.data()[i]);
    return sum;
  };
  const auto adjoint = [&](auto x, const auto& move) {
    x.requires_grad(true);
    const auto y = move(x);
    using Y = std::remove_const_t<decltype(y)>;
    typename Y::Gradient g =
        detail::make_tensor<double, Y::rank, GradientLayout<typename Y::layout_type>>(y.impl()->global, mesh);
    const auto whole = counting<double>({7, 5});
    detail::execute(mesh, detail::PlacementList<2>{}, Y::Gradient::placements, y.impl()->global, DType::float64,
                    whole.data(), g.data());
    backward(y, g);
    CHECK(inner(detach(y).full_tensor(), whole) == inner(detach(x).full_tensor(), x.grad().full_tensor()));
  };
  const auto whole = counting<double>({7, 5});
  adjoint(distribute_tensor<Shard<0>, Shard<1>>(whole, mesh),
          [](const auto& x) { return redistribute<Shard<1>, Shard<0>>(x); });
  adjoint(distribute_tensor<Shard<0>, Shard<0>>(whole, mesh),
          [](const auto& x) { return redistribute<Replicate, Shard<0>>(x); });
  adjoint(distribute_tensor<Partial<>, Shard<0>>(whole, mesh),
          [](const auto& x) { return redistribute<Shard<0>, Shard<0>>(x); });
  adjoint(distribute_tensor<Replicate, Shard<1>>(whole, mesh),
          [](const auto& x) { return redistribute<Partial<>, Replicate>(x); });
}
