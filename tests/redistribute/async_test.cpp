// Moves in two halves: values against the oracle, handles that are dropped, kept and waited for out of order, ranks that come
// late or never.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/core.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/redistribute/async.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/made.hpp"
#include "redistribute/oracle.hpp"
#include "redistribute/values.hpp"
#include "support/reads_peers.hpp"

using namespace shardwise;
using namespace test;
using namespace std::chrono_literals;

static_assert(PostingCommunicator<ThreadCommunicator>);
static_assert(!PostingCommunicator<int>);

namespace {

template <class... From, class Mesh, class Move>
void check_move(Failures& failures, const Mesh& mesh, Move move) {
  for (const std::int64_t rows : {0, 1, 5, 8, 131})
    for (const std::int64_t columns : {1, 7, 257}) {
      const auto x = made<double, From...>(mesh, {rows, columns}, rows);
      auto handle = move(x);
      const auto y = handle.wait();
      if (!is_moved(x, y, rows)) failures.add(text(case_of(x, rows)));
      if (handle.wait().data() != y.data()) failures.add("another tensor at the second wait");
    }
}

// The message of what `f` throws on each rank, without stopping the others.
template <class E, class F>
std::vector<std::string> thrown_on_ranks(int n, F f) {
  std::vector<std::string> messages(static_cast<std::size_t>(n));
  try {
    run_ranks(n, [&](ThreadCommunicator world) {
      messages[static_cast<std::size_t>(world.rank())] = thrown<E>([&] { f(world); });
    });
  } catch (const Error&) {
  }
  return messages;
}

}  // namespace

TEST_CASE("redistribute_async gives what the oracle says, the same at every wait") {
  for (const int n : {1, 3, 4}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      check_move<Shard<0>>(failures, mesh, [](const auto& x) { return redistribute_async<Shard<1>>(x); });
      check_move<Shard<0>>(failures, mesh, [](const auto& x) { return redistribute_async<Replicate>(x); });
      check_move<Shard<1>>(failures, mesh, [](const auto& x) { return redistribute_async<On<"tp", Shard<-2>>>(x); });
      check_move<Shard<1>>(failures, mesh, [](const auto& x) { return redistribute_async<Shard<1>>(x); });
      check_move<Partial<>>(failures, mesh, [](const auto& x) { return redistribute_async<Replicate>(x); });
      check_move<Partial<>>(failures, mesh, [](const auto& x) { return redistribute_async<Shard<0>>(x); });
      check_move<Partial<Avg>>(failures, mesh, [](const auto& x) { return redistribute_async<Replicate>(x); });
      check_move<Partial<Max>>(failures, mesh, [](const auto& x) { return redistribute_async<Shard<1>>(x); });
      check_move<Replicate>(failures, mesh, [](const auto& x) { return redistribute_async<Shard<0>>(x); });
      check_move<Replicate>(failures, mesh, [](const auto& x) { return redistribute_async<Partial<>>(x); });
    });
    INFO(failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("redistribute_async on two axes gives what the oracle says") {
  Failures failures;
  run_ranks(6, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
    check_move<Shard<0>, Shard<1>>(failures, mesh,
                                   [](const auto& x) { return redistribute_async<Shard<1>, Shard<0>>(x); });
    check_move<Shard<0>, Shard<0>>(failures, mesh,
                                   [](const auto& x) { return redistribute_async<Replicate, Shard<0>>(x); });
    check_move<Shard<0>, Partial<>>(failures, mesh,
                                    [](const auto& x) { return redistribute_async<Partial<>, Replicate>(x); });
    check_move<Partial<Avg>, Partial<>>(failures, mesh,
                                        [](const auto& x) { return redistribute_async<On<"dp", Shard<1>>>(x); });
  });
  INFO(failures.first());
  CHECK(failures.count() == 0);
}

SHARDWISE_TEST_RANKS("block-cyclic tensors move in two halves too", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = made<float, Shard<0>>(mesh, {45, 31});
  const auto there = redistribute_async<BlockCyclic<1, 2>>(x).wait();
  const auto back = redistribute_async<Shard<0>>(there);
  CHECK(equal(redistribute<BlockCyclic<1, 2>>(x).to_local(), there.to_local()));
  CHECK(equal(back.wait().to_local(), x.to_local()));
}

SHARDWISE_TEST_RANKS(
    "a handle outlives its input, and the memory of the input is not used again before all have read it", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  for (const std::int64_t rows : {8, 300}) {
    const auto same = made<float, Shard<0>>(mesh, {rows, 100}, 3);
    auto x = made<float, Shard<0>>(mesh, {rows, 100}, 3);
    const auto handle = redistribute_async<Shard<1>>(x);
    CHECK(!handle.input_is_free());
    const std::int64_t size = x.size();
    x = decltype(x)();
    std::vector<Tensor<float, 1>> others;  // they would get the block
    for (int i = 0; i < 8; ++i) others.push_back(full<float>({size}, -1.0f));
    world.barrier();
    CHECK(is_moved(same, handle.wait(), 3));
  }
}

SHARDWISE_TEST_RANKS("a view of the caller's memory is copied at the start", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {3});
  std::vector<float> memory(4000);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
  const auto part = Tensor<float, 2>::view(memory.data(), {40, 100});
  const auto x = from_local<Shard<0>>(part, mesh);
  const auto want = redistribute<Shard<1>>(x);
  world.barrier();
  const auto handle = redistribute_async<Shard<1>>(x);
  for (float& v : memory) v = -1;
  world.barrier();
  CHECK(equal(handle.wait().to_local(), want.to_local()));
}

SHARDWISE_TEST_RANKS("several moves are under way, collectives stand between, and each rank waits in its own order",
                     4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  for (int turn = 0; turn < 20; ++turn) {
    const auto a = made<float, Shard<0>, Shard<1>>(mesh, {17 + turn, 40}, turn);
    const auto b = made<double, Partial<>, Shard<0>>(mesh, {9, 200}, turn);
    const auto c = made<std::int64_t, Replicate, Shard<0>>(mesh, {30, 30}, turn);
    const auto first = redistribute_async<Shard<1>, Shard<0>>(a);
    const auto second = redistribute_async<On<"dp", Replicate>>(b);
    const auto third = redistribute_async<On<"tp", Replicate>>(c);
    CHECK(is_moved(b, redistribute<Replicate, Replicate>(b), turn));
    const auto fourth = redistribute_async<Replicate, Replicate>(a);
    world.barrier();
    if (world.rank() % 2 == 0) {
      CHECK(is_moved(a, fourth.wait(), turn));
      CHECK(is_moved(c, third.wait(), turn));
      CHECK(is_moved(b, second.wait(), turn));
      CHECK(is_moved(a, first.wait(), turn));
    } else {
      CHECK(is_moved(b, second.wait(), turn));
      CHECK(is_moved(a, first.wait(), turn));
      CHECK(is_moved(c, redistribute_async<On<"dp", Shard<1>>>(c).wait(), turn));  // local
      CHECK(is_moved(c, third.wait(), turn));
      CHECK(is_moved(a, fourth.wait(), turn));
    }
  }
}

TEST_CASE("a late rank holds back neither the start nor the computation of the others") {
  std::atomic<int> computed{0}, taken{0};
  run_ranks(4, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    const auto x = made<float, Shard<0>>(mesh, {64, 200});
    // Each of these loops would never end if the other ranks could not go on without this one.
    if (world.rank() == 3)
      while (computed.load() < 3) std::this_thread::yield();
    const auto handle = redistribute_async<Shard<1>>(x);
    computed.fetch_add(1);
    // A rank that has started and does not come back is not missed either: the others take their part and go.
    if (world.rank() == 3) {
      while (taken.load() < 3) std::this_thread::yield();
      CHECK(!handle.input_is_free());
    }
    CHECK(is_moved(x, handle.wait()));
    taken.fetch_add(1);
  });
}

TEST_CASE("a dropped handle neither waits nor keeps the others from this rank's part") {
  std::atomic<int> dropped{0};
  run_ranks(4, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    auto x = made<float, Shard<0>>(mesh, {64, 200});
    const auto same = made<float, Shard<0>>(mesh, {64, 200});
    if (world.rank() < 2) {
      redistribute_async<Shard<1>>(x);
      x = decltype(x)();
      dropped.fetch_add(1);
    } else {
      while (dropped.load() < 2) std::this_thread::yield();
      const auto handle = redistribute_async<Shard<1>>(x);
      const auto copy = handle;
      CHECK(is_moved(same, copy.wait()));
      CHECK(handle.wait().data() == copy.wait().data());
      handle.wait_for_readers();
      CHECK(handle.input_is_free());
    }
  });
}

SHARDWISE_TEST_RANKS("after wait_for_readers the input may be written", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  auto x = made<float, Shard<0>>(mesh, {400, 100}, 0);
  const auto same = made<float, Shard<0>>(mesh, {400, 100}, 0);
  for (int turn = 0; turn < 10; ++turn) {
    const auto handle = redistribute_async<Shard<1>>(x);
    const auto y = handle.wait();
    handle.wait_for_readers();
    for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = -1;
    CHECK(is_moved(same, y));
    for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = same.data()[i];
  }
}

SHARDWISE_TEST_RANKS("ready says whether wait would wait", 2) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {2});
  const auto x = made<float, Shard<0>>(mesh, {4, 4});
  CHECK(redistribute_async<Shard<0>>(x).ready());
  if (world.rank() == 0) {
    const auto handle = redistribute_async<Replicate>(x);
    CHECK(!handle.ready());
    world.barrier();
    world.barrier();
    CHECK(handle.ready());
    CHECK(is_moved(x, handle.wait()));
    CHECK(handle.ready());
  } else {
    world.barrier();
    const auto handle = redistribute_async<Replicate>(x);
    world.barrier();
    CHECK(handle.ready());
    CHECK(is_moved(x, handle.wait()));
  }
}

SHARDWISE_TEST_RANKS("ranks outside the mesh have handles too", 3) {
  const auto mesh = init_device_mesh<"tp">(world, {2});
  const auto x = zeros<float, Shard<0>>(mesh, {4, 4});
  const auto handle = redistribute_async<Replicate>(x);
  CHECK(handle.wait().size() == (mesh.is_member() ? 16 : 0));
  CHECK(handle.input_is_free() == handle.input_is_free());
}

SHARDWISE_TEST_RANKS("CommDebugMode hears a move when it is waited for, once, in the module that started it", 4) {
  if (!reads_peers(world)) return;
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto x = made<float, Shard<0>>(mesh, {64, 200});
  static const Name name("layer");
  CommDebugMode mode;
  const auto handle = [&] {
    const detail::ModuleFrame frame(&name);
    return redistribute_async<Shard<1>>(x);
  }();
  CHECK(mode.total_count() == 0);
  handle.wait();
  handle.wait();
  CHECK(mode.total_count() == 1);
  CHECK(mode.count(Collective::all_to_all, "tp") == 1);
  CHECK(mode.module_count("layer") == 1);
  CHECK(mode.total_bytes() == 16 * 150 * 4);
}

SHARDWISE_TEST_RANKS("the gradient is that of redistribute", 4) {
  const auto mesh = init_device_mesh<"tp">(world, {4});
  const auto gradient_of = [&](const auto& x, auto move, const auto& grad) {
    auto leaf = clone(x);
    leaf.requires_grad(true);
    auto y = move(leaf);
    backward(y, grad);
    return leaf.grad().to_local();
  };
  const auto g1 = made<float, Shard<1>>(mesh, {10, 12}, 5);
  const auto g2 = made<float, Replicate>(mesh, {10, 12}, 6);
  const auto shard = made<float, Shard<0>>(mesh, {10, 12});
  const auto sum = made<float, Partial<>>(mesh, {10, 12});
  const auto mean = made<float, Partial<Avg>>(mesh, {10, 12});
  const auto later = []<class P>(P) { return [](const auto& x) { return redistribute_async<P>(x).wait(); }; };
  const auto now = []<class P>(P) { return [](const auto& x) { return redistribute<P>(x); }; };
  CHECK(equal(gradient_of(shard, later(Shard<1>()), g1), gradient_of(shard, now(Shard<1>()), g1)));
  CHECK(equal(gradient_of(shard, later(Replicate()), g2), gradient_of(shard, now(Replicate()), g2)));
  CHECK(equal(gradient_of(sum, later(Replicate()), g2), gradient_of(sum, now(Replicate()), g2)));
  CHECK(equal(gradient_of(mean, later(Shard<1>()), g1), gradient_of(mean, now(Shard<1>()), g1)));
  // By the law, not by the other function: the gradient of the move is the move back.
  CHECK(equal(gradient_of(shard, later(Shard<1>()), g1), redistribute<Shard<0>>(g1).to_local()));

  auto maximum = made<float, Partial<Max>>(mesh, {4, 4});
  maximum.requires_grad(true);
  CHECK(contains(thrown<Error>([&] { redistribute_async<Replicate>(maximum); }), "has no gradient"));
  world.barrier();  // nobody is waited for
}

// ---- design 9 ------------------------------------------------------------------------------------------------------

TEST_CASE("a throw on one rank reaches the wait() of the others, at every call, and their next start") {
  const auto messages = thrown_on_ranks<Error>(3, [](const ThreadCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const auto x = zeros<float, Shard<0>>(mesh, {30, 30});
    if (world.rank() == 1) world.abort("out of cheese");
    const auto handle =
        [&]() -> std::optional<AsyncTensor<DTensor<float, 2, std::decay_t<decltype(mesh)>, Replicate>>> {
      try {
        return redistribute_async<Replicate>(x);
      } catch (const PeerFailedError&) {
        return std::nullopt;
      }
    }();
    if (handle) {
      const std::string first = thrown<PeerFailedError>([&] { handle->wait(); });
      const std::string second = thrown<PeerFailedError>([&] { handle->wait(); });
      if (first.empty() || first != second) return;
      CHECK(contains(first, "shardwise::all_gather of float [30, 30] on axis 'tp': "));
    }
    redistribute_async<Replicate>(x);
  });
  for (const std::string& message : messages) {
    CAPTURE(message);
    CHECK(contains(message, "all_gather of float [30, 30] on axis 'tp'"));
    CHECK(contains(message, "rank 1 aborted: out of cheese"));
  }
}

TEST_CASE("user code that throws between start and wait: the original reaches the caller, the others are told") {
  std::atomic<int> told{0};
  const std::string message = thrown<std::runtime_error>([&] {
    run_ranks(4, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"tp">(world, {4});
      auto x = made<float, Shard<0>>(mesh, {400, 100});
      try {
        const auto first = redistribute_async<Shard<1>>(x);
        if (world.rank() == 2) throw std::runtime_error("out of cheese");
        x = decltype(x)();
        first.wait();
        const auto second = redistribute_async<Shard<0>>(first.wait());  // rank 2 never starts this one
        second.wait();
      } catch (const PeerFailedError& e) {
        if (contains(e.what(), "rank 2 failed: out of cheese")) told.fetch_add(1);
        throw;
      }
    });
  });
  CHECK(message == "out of cheese");
  CHECK(told.load() == 3);
}

TEST_CASE("a rank that never starts is a TimeoutError that names the operation, the axis and the rank") {
  std::vector<std::string> messages;
  // Again with more time where a busy machine made another rank miss the deadline too.
  std::chrono::milliseconds deadline = 50ms;
  for (;; deadline *= 4) {
    std::atomic<bool> over{false};
    messages = thrown_on_ranks<TimeoutError>(3, [&](const ThreadCommunicator& world) {
      const auto mesh = init_device_mesh<"tp">(world.with_deadline(deadline), {3});
      const auto x = zeros<float, Partial<>>(mesh, {30, 30});
      if (world.rank() == 1) {
        while (!over.load()) std::this_thread::yield();
        redistribute_async<Replicate>(x);
        return;
      }
      const auto handle = redistribute_async<Replicate>(x);
      struct Over {
        std::atomic<bool>& flag;
        ~Over() { flag = true; }
      } const set{over};
      handle.wait();
    });
    if (!contains(messages[0], "missing: ranks ") || deadline > 10s) break;
  }
  for (const std::string& message : messages) {
    CAPTURE(message);
    CHECK(contains(message, "shardwise::all_reduce(sum) of float [30, 30] on axis 'tp': deadline of " +
                                std::to_string(deadline.count()) + " ms passed on rank "));
    CHECK(contains(message, "; missing: rank 1"));
  }
}

TEST_CASE("a rank that returns without starting is missed at once") {
  const auto messages = thrown_on_ranks<PeerFailedError>(3, [](const ThreadCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const auto x = zeros<float, Shard<0>>(mesh, {3, 3});
    if (world.rank() == 2) return;
    redistribute_async<Replicate>(x).wait();
  });
  CHECK(contains(messages[0], "rank 2 left early"));
  CHECK(contains(messages[1], "rank 2 left early"));
}

TEST_CASE("a rank that has started may return: its part stays") {
  std::atomic<bool> gone{false};
  run_ranks(3, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const auto x = made<float, Shard<0>>(mesh, {90, 100});
    const auto handle = redistribute_async<Replicate>(x);
    if (world.rank() == 2) {
      gone = true;
      return;
    }
    while (!gone.load()) std::this_thread::yield();
    std::this_thread::sleep_for(5ms);
    CHECK(is_moved(x, handle.wait()));
    handle.wait_for_readers();
  });
}

TEST_CASE("ranks that start different moves get a MismatchError that names both") {
  const auto messages = thrown_on_ranks<MismatchError>(3, [](const ThreadCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {3});
    const auto x = zeros<float, Shard<0>>(mesh, {30, 30});
    const auto y = zeros<double, Shard<0>>(mesh, {3, 3});
    // Two moves in another order.
    if (world.rank() == 1) {
      const auto b = redistribute_async<Replicate>(y);
      const auto a = redistribute_async<Shard<1>>(x);
      a.wait();
    } else {
      const auto a = redistribute_async<Shard<1>>(x);
      const auto b = redistribute_async<Replicate>(y);
      a.wait();
    }
  });
  for (const std::string& message : messages) {
    CAPTURE(message);
    CHECK(contains(message, "ranks call different operations on axis 'tp': rank 0 calls "));
    CHECK(contains(message, "all_to_all of float [30, 30]"));
    CHECK(contains(message, "all_gather of double [3, 3]"));
  }
}

TEST_CASE("inputs that nobody wants any more are freed by the rank that offered them") {
  run_ranks(4, [](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    const std::int64_t before = memory_allocated();
    {
      const auto x = made<float, Shard<0>>(mesh, {400, 100});
      redistribute_async<Shard<1>>(x);
      redistribute_async<Replicate>(x).wait();
    }
    world.barrier();
    redistribute_async<Replicate>(zeros<float, Shard<0>>(mesh, {0, 1}))
        .wait();  // the next one frees what the last left
    CHECK(memory_allocated() == before);
  });
}

TEST_CASE("random starts, waits, drops, delays and collectives on several groups") {
  Failures failures;
  run_ranks(4, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    using Mesh = std::decay_t<decltype(mesh)>;
    std::mt19937 shared(7);  // equal on all ranks: what is started
    std::mt19937 own(static_cast<unsigned>(world.rank()) * 31 + 1);  // each rank's own: when it is waited for
    struct Open {
      std::int64_t salt;
      std::int64_t rows;
      std::optional<AsyncTensor<DTensor<float, 2, Mesh, Shard<1>, Shard<0>>>> swap;
      std::optional<AsyncTensor<DTensor<float, 2, Mesh, Shard<0>, Replicate>>> gather;
    };
    std::vector<Open> open;
    const auto settle = [&](std::size_t i) {
      const Open& o = open[i];
      const auto x = made<float, Shard<0>, Shard<1>>(mesh, {o.rows, 60}, o.salt);
      if (own() % 4 != 0 && !(o.swap ? is_moved(x, o.swap->wait(), o.salt) : is_moved(x, o.gather->wait(), o.salt)))
        failures.add("salt " + std::to_string(o.salt));
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
    };
    for (int turn = 0; turn < 200; ++turn) {
      const std::int64_t rows = static_cast<std::int64_t>(shared() % 200);
      const bool swaps = shared() % 2 == 0;
      Open o{turn, rows, std::nullopt, std::nullopt};
      {
        const auto x = made<float, Shard<0>, Shard<1>>(mesh, {rows, 60}, turn);
        if (swaps)
          o.swap = redistribute_async<Shard<1>, Shard<0>>(x);
        else
          o.gather = redistribute_async<On<"tp", Replicate>>(x);
      }
      open.push_back(std::move(o));
      if (shared() % 8 == 0) world.barrier();
      if (shared() % 8 == 0) redistribute<Replicate, Replicate>(made<double, Partial<>, Shard<0>>(mesh, {20, 20}));
      if (own() % 16 == 0) std::this_thread::sleep_for(1ms);
      while (open.size() > own() % 6) settle(own() % open.size());
    }
    while (!open.empty()) settle(0);
  });
  INFO(failures.first());
  CHECK(failures.count() == 0);
}

TEST_CASE("ranks that fail while others read tear nothing down under them") {
  for (int turn = 0; turn < 30; ++turn) {
    CHECK(thrown<Error>([&] {
            run_ranks(4, [&](ThreadCommunicator world) {
              const auto mesh = init_device_mesh<"tp">(world, {4});
              const auto handle = redistribute_async<Shard<1>>(made<float, Shard<0>>(mesh, {300, 100}));
              if (world.rank() == turn % 4) {
                handle.wait();
                detail::fail("gives up");
              }
              handle.wait();
              world.barrier();
            });
          }) == "gives up");
  }
}
