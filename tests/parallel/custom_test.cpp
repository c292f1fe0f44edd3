// What users bring: a layer of a known kind, a layer of their own kind with their own style, and data parallelism by hand around
// tensor parallelism.
#include <shardwise/testing/doctest.hpp>

#include <span>

#include "parallel/support.hpp"

using namespace shardwise;
using namespace test;

namespace {

// A linear layer that also squares: known styles shard it by its kind.
template <class Scope = Unsharded<float>>
struct Squared {
  using layer_kind = LinearLayer;
  Param<Scope, "weight", 2, LinearLayer> weight;
  auto operator()(const auto& x) const {
    const auto y = linear(x, weight.tensor());
    return y * y;
  }
};

// A layer of a kind that the library does not know, and the style that does.
struct DiagonalLayer {};
template <class Scope = Unsharded<float>>
struct Diagonal {
  using layer_kind = DiagonalLayer;
  Param<Scope, "diagonal", 1, DiagonalLayer> diagonal;
  Param<Scope, "shift", 1, DiagonalLayer> shift;
  auto operator()(const auto& x) const { return x * diagonal.tensor() + shift.tensor(); }
};

struct DiagonalParallel {
  bool gather = true;

  static constexpr bool shards_parameters = true;
  template <class Kind>
  static constexpr bool supports = std::is_same_v<Kind, DiagonalLayer>;
  template <class Kind>
  constexpr auto parameter(const Name&, std::size_t) const {
    return place<Shard<-1>>;
  }
  template <auto self, class L, class Mesh, class X>
  static auto prepare_input(const L&, const Mesh& mesh, const X& x) {
    if constexpr (X::distributed)
      return std::tuple(redistribute<Shard<-1>>(x));
    else
      return std::tuple(redistribute<Shard<-1>>(from_local<Replicate>(x, mesh)));
  }
  template <auto self, class L, class Mesh, class Y>
  static auto prepare_output(const L&, const Mesh&, const Y& y) {
    if constexpr (self.gather)
      return redistribute<Replicate>(y).to_local();
    else
      return y;
  }
};
static_assert(ParallelStyle<DiagonalParallel>);
static_assert(!ParallelStyle<int>);

template <class Scope = Unsharded<float>>
struct Model {
  Child<Scope, "diagonal", Diagonal> diagonal;
  Child<Scope, "squared", Squared> squared;
  Child<Scope, "out", nn::Linear> out;
  auto operator()(const auto& x) const { return out(squared(diagonal(x))); }
};

Model<> model() {
  manual_seed(3);
  return {Diagonal<>{rand<float>({6}), rand<float>({6})}, Squared<>{rand<float>({9, 6})}, nn::linear(9, 5)};
}

constexpr auto plan = parallelize_plan("diagonal"_path = DiagonalParallel{}, "squared"_path = ColwiseParallel{},
                                       "out"_path = RowwiseParallel{});

}  // namespace

SHARDWISE_TEST_RANKS("layers and styles of one's own train as on one device", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto dense = model();
  auto sharded = parallelize_module<plan>(dense, mesh);
  CHECK(sharded.diagonal.diagonal.local_shape() == Shape<1>{world.rank() < 3 ? 2 : 0});
  CHECK(sharded.squared.weight.local_shape() == Shape<2>{world.rank() < 3 ? 3 : 0, 6});
  manual_seed(4);
  const auto x = rand<float>({4, 6});
  train_alike(dense, sharded, x, x, 3, 0.001);
}

SHARDWISE_TEST_RANKS("a style of one's own keeps the fields that the plan gave it", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  manual_seed(3);
  const Diagonal<> dense{rand<float>({6}), rand<float>({6})};
  const auto sharded = parallelize_module<DiagonalParallel{.gather = false}>(dense, mesh);
  const auto x = rand<float>({4, 6});
  const auto y = sharded(x);
  static_assert(std::remove_cvref_t<decltype(y)>::distributed);
  CHECK(allclose(y.full_tensor(), dense(x), {.rtol = 1e-6, .atol = 1e-6}));
}

SHARDWISE_TEST_RANKS("data parallel by hand around tensor parallel", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto tp = mesh.get<"tp">();
  const auto dp = mesh.get<"dp">();
  auto dense = model();
  const auto sharded = parallelize_module<plan>(dense, tp);
  manual_seed(4);
  const auto x = rand<float>({8, 6});
  const auto y = dense(x);
  backward(mean(y * y));
  const auto z = sharded(part<Shard<0>>(x, dp));
  backward(mean(z * z));
  settle_gradients(parameters(sharded));
  for_each_parameter(sharded, [&](std::string_view, const auto& p) {
    auto gradient = p.grad();
    const std::span<float> values(gradient.data(), static_cast<std::size_t>(gradient.size()));
    dp.communicator<"dp">().all_reduce(values, values, ReduceOp::avg);
  });
  check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), 1e-5);
}
