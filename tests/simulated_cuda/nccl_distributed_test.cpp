// The public functions of distributed tensors on devices, each against the same program on the host: values, and gradients.
#include <doctest/doctest.h>

#include <string>
#include <tuple>
#include <vector>

#include <shardwise/backends/thread.hpp>
#include <shardwise/core.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/device/redistribute.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/as_partial.hpp>
#include <shardwise/redistribute/async.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/other_mesh.hpp>

#include "simulated_cuda/control.hpp"
#include "simulated_cuda/ranks.hpp"

namespace {

using namespace shardwise;
using namespace test;

// A plain tensor whose values depend on its place and a salt; small integers, so that sums are exact.
template <std::size_t R>
Tensor<float, R> counted(const Shape<R>& shape, int salt) {
  Tensor<float, R> x(shape);
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>((i * 7 + salt * 5) % 23 - 11);
  return x;
}
// The tensor where the ranks of a mesh have theirs.
template <class Mesh, std::size_t R>
auto there(const Mesh&, const Tensor<float, R>& x) {
  if constexpr (std::is_same_v<typename Mesh::Communicator, NcclCommunicator>)
    return to_device(x);
  else
    return x;
}

// What one rank of a program saw, in words and numbers.
struct Seen {
  std::vector<float> values;
  template <class X>
  void add(const X& x) {
    if constexpr (X::distributed) {
      add(x.to_local());
    } else {
      const auto home = on_host(x);
      values.push_back(static_cast<float>(home.size()));
      values.insert(values.end(), home.data(), home.data() + home.size());
    }
  }
};

// program(world, seen) on threads and on devices; both ranks for ranks must see the same.
template <class Program>
void same_there(int ranks, const Program& program) {
  std::vector<Seen> host(static_cast<std::size_t>(ranks)), device(static_cast<std::size_t>(ranks));
  run_ranks(ranks, [&](ThreadCommunicator world) { program(world, host[static_cast<std::size_t>(world.rank())]); });
  check_none(on_ranks(
      ranks, [&](const NcclCommunicator& world) { program(world, device[static_cast<std::size_t>(world.rank())]); }));
  for (std::size_t r = 0; r < host.size(); ++r) {
    INFO("rank ", r);
    CHECK(host[r].values.size() > 0);
    CHECK(host[r].values == device[r].values);
  }
}

TEST_CASE("a tensor is distributed from any rank, and whole again") {
  same_there(4, [](const auto& world, Seen& seen) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    const auto x = there(mesh, counted<2>({5, 6}, world.rank()));
    const auto add = [&](const auto& y) {
      seen.add(y);
      seen.add(y.full_tensor());
    };
    add(distribute_tensor<Shard<0>, Shard<1>>(x, mesh));
    add(distribute_tensor<Shard<0>, Shard<0>>(x, mesh, {.src_data_rank = 1}));
    add(distribute_tensor<Replicate, Replicate>(x, mesh, {.src_data_rank = 1}));
    add(distribute_tensor<Partial<>, Shard<1>>(x, mesh));
    add(distribute_tensor<Replicate, Partial<>>(x, mesh));
    add(distribute_tensor<Shard<1>, Replicate>(x, mesh, {.src_data_rank = no_source}));
    add(distribute_tensor<Shard<0>, Replicate>(counted<2>({3, 4}, world.rank()), mesh));  // from the host
  });
}

TEST_CASE(
    "parts of each rank make a tensor, and moves between all kinds of placements give what they give on the host") {
  same_there(3, [](const auto& world, Seen& seen) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const std::int64_t rows = world.rank() == 2 ? 1 : 2;
    const auto x =
        from_local<Shard<0>>(there(mesh, counted<2>({rows, 4}, world.rank())), mesh, {.global_shape = Shape<2>{5, 4}});
    seen.add(redistribute<Shard<1>>(x));
    seen.add(redistribute<Replicate>(x));
    seen.add(redistribute<Partial<>>(x));
    seen.add(redistribute_async<Shard<1>>(x).wait());
    const auto terms = from_local<Partial<>>(there(mesh, counted<2>({4, 6}, world.rank())), mesh);
    seen.add(redistribute<Replicate>(terms));
    seen.add(redistribute<Shard<0>>(terms));
    auto out = redistribute<Shard<1>>(terms);
    redistribute_into(terms, out);
    seen.add(out);
    seen.add(redistribute<Shard<0>>(from_local<Partial<Avg>>(there(mesh, counted<2>({6, 3}, world.rank())), mesh)));
    const auto [a, b, c, d] =
        redistribute_all(to<Shard<1>>(x), to<Replicate>(terms), to<Shard<0>>(terms), to<Partial<>>(x));
    seen.add(a);
    seen.add(b);
    seen.add(c);
    seen.add(d);
  });
}

TEST_CASE("parts on the host are brought to the devices of a mesh, and their gradients back") {
  same_there(3, [](const auto& world, Seen& seen) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    auto x = counted<2>({4, 3}, world.rank());
    x.requires_grad(true);
    const auto y = from_local<Replicate>(x, mesh);
    seen.add(y);
    seen.add(from_local<WithGradient<Shard<0>, Shard<0>>>(x, mesh));
    const auto moved = redistribute<Shard<1>>(y);
    backward(moved, distribute_tensor<Shard<1>>(there(mesh, counted<2>({4, 3}, 4)), mesh));
    seen.add(x.grad());
    backward(from_local<Shard<0>>(x, mesh), distribute_tensor<Shard<0>>(counted<2>({12, 3}, 5), mesh));
    seen.add(x.grad());  // both
    NoGrad guard;
    seen.add(from_local<Shard<0>>(x, mesh));
    const std::int64_t rows = world.rank() == 2 ? 1 : 2;
    seen.add(from_local<Shard<0>>(counted<2>({rows, 4}, 5), mesh, {.global_shape = Shape<2>{5, 4}}));
    const auto half = init_device_mesh<"tp">(world, {2}, {.ranks = {2, 0}});
    seen.add(from_local<Shard<0>>(x, half));
  });
}

TEST_CASE("tensors are compared wherever they lie") {
  const auto x = counted<2>({3, 5}, 1), y = counted<2>({3, 5}, 2);
  const auto u = to_device(x), v = to_device(y);
  CHECK(equal(u, to_device(x)));
  CHECK(equal(u, x));
  CHECK(equal(x, u));
  CHECK_FALSE(equal(u, v));
  CHECK_FALSE(equal(x, v));
  CHECK_FALSE(equal(u, to_device(counted<2>({5, 3}, 1))));
  CHECK(allclose(u, x));
  CHECK_FALSE(allclose(x, v));
  CHECK(allclose(u, v, {.atol = 100}));
}

TEST_CASE("values become terms without communication") {
  same_there(2, [](const auto& world, Seen& seen) {
    const auto mesh = init_device_mesh<"tp">(world, {2});
    const auto x = distribute_tensor<Replicate>(there(mesh, counted<1>({7}, 1)), mesh);
    seen.add(as_partial<Sum>(x));
    seen.add(as_partial<Avg>(x));
    seen.add(as_partial<Max>(x));
    seen.add(as_partial<Product>(x));
    seen.add(redistribute<Replicate>(as_partial<Min>(x)));
  });
}

// x moved from P... to Q..., and the gradient that comes back for a given one.
template <class... P, class Mesh, class Move>
void there_and_back(const Mesh& mesh, Seen& seen, const Move& move, int salt) {
  auto x = from_local<P...>(there(mesh, counted<2>({4, 2}, mesh.ranks()[0] + salt)), mesh);
  x.requires_grad(true);
  const auto y = move(x);
  const auto part = there(mesh, counted(y.local_shape(), 3));
  using Gradient = typename std::remove_cvref_t<decltype(y)>::Gradient;
  backward(y, Gradient(detail::share_impl(part.impl()->buffer, y.impl()->global, y.impl()->local), mesh));
  seen.add(y);
  seen.add(x.grad());
}

TEST_CASE("the gradient of a move is the transposed move, on devices as on the host") {
  same_there(4, [](const auto& world, Seen& seen) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    there_and_back<Shard<0>>(mesh, seen, [](const auto& x) { return redistribute<Shard<1>>(x); }, 1);
    there_and_back<Shard<0>>(mesh, seen, [](const auto& x) { return redistribute<Replicate>(x); }, 2);
    there_and_back<Replicate>(mesh, seen, [](const auto& x) { return redistribute<Shard<1>>(x); }, 3);
    there_and_back<Partial<>>(mesh, seen, [](const auto& x) { return redistribute<Replicate>(x); }, 4);
    there_and_back<Partial<>>(mesh, seen, [](const auto& x) { return redistribute<Shard<0>>(x); }, 5);
    there_and_back<Partial<Avg>>(mesh, seen, [](const auto& x) { return redistribute<Shard<1>>(x); }, 6);
    there_and_back<Replicate>(mesh, seen, [](const auto& x) { return as_partial<Avg>(x); }, 7);
    there_and_back<Replicate>(mesh, seen, [](const auto& x) { return redistribute<Partial<>>(x); }, 8);
    there_and_back<Shard<1>>(
        mesh, seen, [](const auto& x) { return from_local<Replicate>(x.full_tensor(), x.mesh()); }, 9);
  });
}

TEST_CASE("a tensor moves to another mesh of the same world, and its gradient back") {
  same_there(4, [](const auto& world, Seen& seen) {
    const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
    const auto line = init_device_mesh<"tp">(world, {4}, {.ranks = {3, 1, 0, 2}});
    const auto few = init_device_mesh<"tp">(world, {3}, {.ranks = {2, 0, 1}});
    const auto move = [&](const auto& x, const auto& moved) {
      seen.add(moved);
      const auto part = there(grid, counted(moved.local_shape(), 3));
      using Gradient = typename std::remove_cvref_t<decltype(moved)>::Gradient;
      backward(moved, Gradient(detail::share_impl(part.impl()->buffer, moved.impl()->global, moved.impl()->local),
                               moved.mesh()));
      seen.add(x.grad());
    };
    auto x = distribute_tensor<Shard<0>, Shard<1>>(there(grid, counted<2>({7, 6}, 2)), grid);
    x.requires_grad(true);
    move(x, redistribute<Shard<1>>(x, line));
    auto y = distribute_tensor<Shard<0>, Shard<1>>(there(grid, counted<2>({7, 6}, 3)), grid);
    y.requires_grad(true);
    move(y, redistribute<BlockCyclic<0, 2>>(y, few));
    const auto terms = from_local<Partial<>, Shard<0>>(there(grid, counted<2>({4, 6}, world.rank())), grid);
    seen.add(redistribute<Replicate>(terms, few));
    auto out = redistribute<Shard<0>>(terms, line);
    redistribute_into(terms, out);
    seen.add(out);
    const auto cyclic = distribute_tensor<BlockCyclic<0, 2>, Shard<1>>(there(grid, counted<2>({9, 5}, 1)), grid);
    seen.add(cyclic);
    seen.add(redistribute<Shard<0>, Replicate>(cyclic));
    const auto [a, b] = redistribute_all(to<Replicate, Replicate>(cyclic), to<Shard<0>, Shard<0>>(terms));
    seen.add(a);
    seen.add(b);
  });
}

TEST_CASE("what NCCL moves as it lies, and what is sent from where it lies to where it belongs, takes no memory") {
  check_none(on_ranks(3, [](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const auto shards = distribute_tensor<Shard<0>>(counted<2>({6, 4}, 0), mesh);
    const auto uneven = distribute_tensor<Shard<0>>(counted<2>({7, 4}, 1), mesh);
    const auto terms = from_local<Partial<>>(to_device(counted<2>({6, 4}, world.rank())), mesh);
    auto whole = redistribute<Replicate>(shards);
    auto part = redistribute<Shard<0>>(terms);
    auto all = redistribute<Replicate>(uneven);
    const auto right = to_host(all.to_local());
    world.barrier();
    if (world.rank() == 0) simulated_cuda::fail_next("cudaMallocFromPoolAsync", cudaErrorUnknown);
    redistribute_into(shards, whole);
    redistribute_into(terms, whole);
    redistribute_into(terms, part);
    redistribute_into(uneven, all);
    world.synchronize();
    if (world.rank() == 0) {  // the failure is still there: nobody has asked for memory
      try {
        (void)Cuda::allocated(8);
      } catch (const CudaError&) {
        if (!equal(to_host(all.to_local()), right)) throw Error("wrong data");
        return;
      }
      throw Error("memory was taken");
    }
  }));
}

TEST_CASE("sums in rank order have the bits of the host, whatever way they go") {
  same_there(4, [](const auto& world, Seen& seen) {
    const auto ordered = [&] {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(world)>, NcclCommunicator>)
        return world.with_rank_order(true);
      else
        return world;
    }();
    const auto mesh = init_device_mesh<"dp", "tp">(ordered, {2, 2});
    // 1e8 + 1 - 1e8 - 1: the order of the terms decides.
    const float term[] = {1e8f, 1, -1e8f, -1};
    Tensor<float, 2> mine({5, 6});
    for (std::int64_t i = 0; i < mine.size(); ++i)
      mine.data()[i] = term[world.rank()] * (1 + static_cast<float>(i) / 7);
    const auto x = from_local<Partial<>, Partial<>>(there(mesh, mine), mesh);
    seen.add(redistribute<Replicate, Replicate>(x));
    seen.add(redistribute<Shard<0>, Replicate>(x));
    seen.add(redistribute<Shard<0>, Shard<1>>(x));
    seen.add(redistribute<Replicate, Shard<1>>(x));
    seen.add(redistribute<On<"tp", Shard<1>>>(x));
    seen.add(redistribute<On<"dp", Replicate>>(x));
  });
}

TEST_CASE("a part stays until the current stream has moved it, wherever it was made") {
  check_none(on_ranks(2, [](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {2});
    for (int round = 0; round < 20; ++round) {
      const auto right = counted<2>({64, 32}, round);
      const cuda::Stream other;
      const cuda::StreamView here = cuda::current_stream();
      Tensor<float, 2> whole;
      {
        auto x = distribute_tensor<Shard<0>>(right, mesh, {.src_data_rank = no_source});
        const cuda::StreamScope scope(other);
        other.wait(here);
        auto y = redistribute<Shard<1>>(x);
        x = {};
        whole = to_host(redistribute<Replicate>(y).to_local());
      }
      if (!equal(whole, right)) throw Error("wrong data in round " + std::to_string(round));
    }
  }));
}

TEST_CASE("what is moved on a device is counted as elsewhere") {
  check_none(on_ranks(4, [](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    const auto x = from_local<Partial<>, Shard<0>>(to_device(counted<2>({4, 4}, 0)), mesh);
    const CommDebugMode comm;
    (void)redistribute<Shard<0>, Replicate>(x);
    if (comm.total_count() != 1 || comm.count(Collective::reduce_scatter) != 1)
      throw Error("one reduce_scatter: " + std::to_string(comm.total_count()));
    (void)redistribute<On<"tp", Replicate>>(x);
    if (comm.count(Collective::all_gather) != 1) throw Error("one all_gather");
  }));
}

TEST_CASE("block-cyclic tensors that are moved together go as one group of messages, of different types too") {
  check_none(on_ranks(3, [](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const auto x = distribute_tensor<BlockCyclic<0, 2>>(counted<2>({9, 5}, 1), mesh);
    Tensor<double, 2> numbers({4, 8});
    for (std::int64_t i = 0; i < numbers.size(); ++i) numbers.data()[i] = static_cast<double>(i);
    const auto y = distribute_tensor<BlockCyclic<1, 1>>(numbers, mesh);
    const auto terms = from_local<Partial<>>(to_device(counted<2>({7, 3}, world.rank())), mesh);
    const CommDebugMode comm;
    const auto [a, b, c] = redistribute_all(to<Replicate>(x), to<Shard<0>>(y), to<BlockCyclic<0, 2>>(terms));
    if (comm.total_count() != 1) throw Error("one exchange: " + std::to_string(comm.total_count()));
    const bool right = equal(a.to_local(), redistribute<Replicate>(x).to_local()) &&
                       equal(b.to_local(), redistribute<Shard<0>>(y).to_local()) &&
                       equal(c.to_local(), redistribute<BlockCyclic<0, 2>>(terms).to_local());
    if (!right) throw Error("other values than one by one");
  }));
}

TEST_CASE("a rank whose thread works on another device is told") {
  const auto thrown = on_ranks(2, [](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {2});
    const auto x = from_local<Shard<0>>(to_device(counted<2>({4, 4}, 0)), mesh);
    cuda::set_device(3);
    (void)redistribute<Replicate>(x);
  });
  for (const std::size_t r : {0u, 1u})
    CHECK(thrown[r].find("call cuda::set_device(" + std::to_string(r) + ") before it") != std::string::npos);
}

}  // namespace
