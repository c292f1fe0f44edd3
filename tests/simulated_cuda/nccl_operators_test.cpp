// Operators of distributed tensors on devices: what each rank of the same program on threads has, values and gradients, within the
// rounding of a device's functions. Shards uneven and empty among them.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <shardwise/backends/thread.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/device/redistribute.hpp>
#include <shardwise/shardwise.hpp>

#include "simulated_cuda/ranks.hpp"

namespace {

using namespace shardwise;
using namespace test;

template <class T, std::size_t R, class Space>
Tensor<T, R> on_host(const Tensor<T, R, Space>& x) {
  if constexpr (std::is_same_v<Space, Host>)
    return x;
  else
    return to_host(x);
}

// What a rank saw.
struct Seen {
  std::vector<float> values;
  template <class X>
  void add(const X& x) {
    const auto part = on_host(x.to_local());
    values.push_back(static_cast<float>(part.size()));
    for (std::int64_t i = 0; i < part.size(); ++i) values.push_back(static_cast<float>(part.data()[i]));
  }
  // f of leaves, and the gradients of the sum of squares of its whole value.
  template <class F, class... X>
  void through(F f, X... x) {
    const auto wanted = []<class Y>(Y& y) {
      if constexpr (FieldElement<typename Y::value_type>) y.requires_grad(true);
    };
    (wanted(x), ...);
    const auto y = f(x...);
    add(y);
    const auto whole = redistribute<Replicate, Replicate>(y);
    backward(sum(whole * whole));
    const auto gradient = [&]<class Y>(const Y& leaf) {
      if constexpr (FieldElement<typename Y::value_type>) {
        settle_gradients({{"x", dtype_of<typename Y::value_type>, leaf.impl()}});
        add(leaf.grad());
      }
    };
    (gradient(x), ...);
  }
};

// program(mesh, seen) on threads and on devices, 2 x 2.
template <class Program>
void same_there(const Program& program) {
  std::vector<Seen> host(4), device(4);
  run_ranks(4, [&](ThreadCommunicator world) {
    program(init_device_mesh<"dp", "tp">(world, {2, 2}), host[static_cast<std::size_t>(world.rank())]);
  });
  check_none(on_ranks(4, [&](const NcclCommunicator& world) {
    program(init_device_mesh<"dp", "tp">(world, {2, 2}), device[static_cast<std::size_t>(world.rank())]);
  }));
  for (std::size_t r = 0; r < 4; ++r) {
    REQUIRE(host[r].values.size() == device[r].values.size());
    CHECK(host[r].values.size() > 10);
    for (std::size_t i = 0; i < host[r].values.size(); ++i) {
      INFO("rank ", r, ", value ", i);
      const float a = host[r].values[i], b = device[r].values[i];
      CHECK(std::abs(a - b) <= 1e-5f * (1 + std::abs(a)));
    }
  }
}

// A tensor of the mesh, equal for equal seeds whatever it lies on.
template <class... P, class Mesh, std::size_t R>
auto drawn(const Mesh& mesh, std::uint64_t seed, const std::int64_t (&shape)[R]) {
  manual_seed(seed);
  return distribute_tensor<P...>(randn<float>(shape), mesh);
}

TEST_CASE("tensors from nothing on a mesh of devices are those of threads") {
  same_there([](const auto& mesh, Seen& seen) {
    seen.add(zeros<float, Shard<0>, Shard<1>>(mesh, {3, 5}));
    seen.add(full<float, Shard<1>, Replicate>(mesh, {3, 5}, 2.5f));
    seen.add(ones<std::int64_t, Replicate, Shard<0>>(mesh, {3}));
    manual_seed(3);
    seen.add(rand<float, Shard<1>, Shard<0>>(mesh, {6, 7}));
    seen.add(randn<float, Shard<0>, Shard<0>>(mesh, {5, 3}));
  });
}

TEST_CASE("products of sharded tensors on devices are those of threads") {
  same_there([](const auto& mesh, Seen& seen) {
    const auto x = drawn<Shard<0>, Replicate>(mesh, 1, {3, 6});
    const auto columns = [](const auto& a, const auto& w, const auto& b) { return linear(a, w, b); };
    seen.through(columns, x, drawn<Replicate, Shard<0>>(mesh, 2, {5, 6}), drawn<Replicate, Shard<0>>(mesh, 3, {5}));
    seen.through(columns, drawn<Shard<0>, Shard<1>>(mesh, 1, {3, 6}), drawn<Replicate, Shard<1>>(mesh, 2, {5, 6}),
                 drawn<Replicate, Replicate>(mesh, 3, {5}));
    seen.through([](const auto& a, const auto& b) { return matmul(a, b); }, x,
                 drawn<Replicate, Shard<1>>(mesh, 4, {6, 3}));
  });
}

TEST_CASE("elementwise operators and sums of sharded tensors on devices are those of threads") {
  same_there([](const auto& mesh, Seen& seen) {
    const auto x = drawn<Shard<0>, Shard<1>>(mesh, 1, {5, 7});
    seen.through([](const auto& a) { return gelu(a * 2.0f - 1.0f) + relu(-a); }, x);
    seen.through([](const auto& a, const auto& b) { return a * b + a; }, x, drawn<Replicate, Shard<0>>(mesh, 2, {7}));
    seen.through([](const auto& a) { return sum(a); }, x);
    seen.through([](const auto& a) { return mean<0>(a) / 3; }, x);
    seen.through([](const auto& a) { return transpose<0, 1>(a); }, x);
    seen.through([](const auto& a) { return reshape(a, {4, 2, 3}); }, drawn<Shard<0>, Replicate>(mesh, 5, {4, 6}));
    manual_seed(8);
    seen.through([](const auto& a) { return dropout(a, 0.4); }, x);
  });
}

TEST_CASE("rows and tables of sharded tensors on devices are those of threads") {
  same_there([](const auto& mesh, Seen& seen) {
    const auto x = drawn<Shard<0>, Shard<1>>(mesh, 1, {3, 5, 8});
    const auto w = drawn<Replicate, Replicate>(mesh, 2, {8});
    seen.through([](const auto& a) { return softmax(a); }, x);
    seen.through([](const auto& a, const auto& p, const auto& q) { return layer_norm(a, p, q); }, x, w, w);
    seen.through([](const auto& a, const auto& p) { return rms_norm(a, p); }, x, w);
    Tensor<std::int64_t, 1> places({6});
    for (std::int64_t i = 0; i < 6; ++i) places.data()[i] = (i * i) % 5;
    const auto lookup = [](const auto& table, const auto& i) { return embedding(table, i); };
    const auto i = distribute_tensor<Replicate, Replicate>(places, mesh);
    seen.through(lookup, drawn<Replicate, Shard<0>>(mesh, 3, {5, 4}), i);
    seen.through(lookup, drawn<Shard<1>, Replicate>(mesh, 3, {5, 3}), i);
  });
}

TEST_CASE("layers that take in one tensor of the host share one reduction of its gradient") {
  same_there([](const auto& mesh, Seen& seen) {
    manual_seed(4);
    auto x = randn<float>({3, 5});
    x.requires_grad(true);
    const auto line = mesh.template get<"tp">();
    const auto layer = [&](std::uint64_t seed) {
      manual_seed(seed);
      const auto w = distribute_tensor<Shard<0>>(randn<float>({6, 5}), line);
      return redistribute<Replicate>(linear(from_local<Replicate>(x, line), w));
    };
    const auto y = layer(5) * layer(6) + layer(7);
    const CommDebugMode comm;
    backward(sum(y * y));
    seen.add(x.grad());
    CHECK(comm.count(Collective::all_reduce) == 1);
  });
}

TEST_CASE("losses of sharded batches on devices are those of threads") {
  same_there([](const auto& mesh, Seen& seen) {
    const auto x = drawn<Shard<0>, Replicate>(mesh, 1, {7, 5});
    Tensor<std::int64_t, 1> classes({7});
    for (std::int64_t i = 0; i < 7; ++i) classes.data()[i] = i == 2 ? -100 : (i * 3) % 5;
    const auto whole = distribute_tensor<Replicate, Replicate>(classes, mesh);
    const auto parts = distribute_tensor<Shard<0>, Replicate>(classes, mesh);
    seen.through([](const auto& a, const auto& t) { return cross_entropy(a, t); }, x, whole);
    seen.through([](const auto& a, const auto& t) { return cross_entropy<Reduction::sum>(a, t); }, x, parts);
    seen.through([](const auto& a, const auto& t) { return cross_entropy<Reduction::none>(a, t); }, x, parts);
  });
}

}  // namespace
