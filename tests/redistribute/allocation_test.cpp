// A repeated move allocates nothing: every way to malloc is counted, per thread. Needs glibc, whose allocator can be wrapped, and
// no sanitizer, which brings its own.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <shardwise/core.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/as_partial.hpp>
#include <shardwise/redistribute/async.hpp>

#include "redistribute/oracle.hpp"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef COUNTS_ALLOCATIONS
#endif
#endif
#endif
#ifndef COUNTS_ALLOCATIONS
#define COUNTS_ALLOCATIONS 0
#endif

namespace {
thread_local std::int64_t allocations = 0;
}

#if COUNTS_ALLOCATIONS
// operator new ends here too.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) { return ++allocations, __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) { return ++allocations, __libc_calloc(n, size); }
void* realloc(void* p, std::size_t n) { return ++allocations, __libc_realloc(p, n); }
void* aligned_alloc(std::size_t alignment, std::size_t n) { return ++allocations, __libc_memalign(alignment, n); }
void* memalign(std::size_t alignment, std::size_t n) { return ++allocations, __libc_memalign(alignment, n); }
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  ++allocations;
  *p = __libc_memalign(alignment, n);
  return *p == nullptr ? 12 : 0;
}
}
#endif

using namespace shardwise;
using namespace test;

namespace {

// Of all ranks together, in the later ones of `turns` calls of `f(mesh)`; the first ones fill the caches. Every rank
// waits before each turn, so that all turns are alike.
template <class F>
std::int64_t allocations_of_turns(const ThreadCommunicator& world, F f) {
  std::int64_t total = 0;
  for (int turn = 0; turn < 24; ++turn) {
    world.barrier();
    const std::int64_t before = allocations;
    f();
    if (turn >= 8) total += allocations - before;
  }
  return total;
}
template <class F>
std::int64_t allocations_of(F f) {
  std::atomic<std::int64_t> total{0};
  run_ranks(4, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    total += allocations_of_turns(world, [&] { f(mesh); });
  });
  return total;
}

template <class Mesh>
using Matrix = DTensor<float, 2, Mesh, Shard<0>, Shard<1>>;

template <class... P, class Mesh>
auto made(const Mesh& mesh, std::int64_t rows) {
  return detail::make_tensor<float, 2, Distributed<Mesh, P...>>(detail::Extents(Shape<2>{rows, 96}), mesh);
}

// Small ones go staged, large ones straight from peer memory.
const std::int64_t sizes[] = {6, 700};

}  // namespace

TEST_CASE("the counter counts" * doctest::skip(!COUNTS_ALLOCATIONS)) {
  {
    const detail::Buffer first(1);
  }  // a thread's first one makes its cache
  const std::int64_t start = allocations;
  const std::string text(1000, 'x');
  const std::int64_t by_new = allocations - start;
  const detail::Buffer buffer(std::size_t{1} << 30);  // a size class that nothing else uses
  const std::int64_t by_both = allocations - start;
  CHECK(text.size() == 1000);
  CHECK(by_new == 1);
  CHECK(by_both == 2);
  CHECK(allocations_of([&](const auto&) { CHECK(std::string(text) == text); }) >= 4 * 16);
}

TEST_CASE("a repeated redistribute allocates nothing" * doctest::skip(!COUNTS_ALLOCATIONS)) {
  for (const std::int64_t rows : sizes) {
    CAPTURE(rows);
    const auto none = [&](auto move) { return allocations_of([&](const auto& mesh) { move(mesh); }) == 0; };
    CHECK(none([&](const auto& mesh) { redistribute<Shard<1>, Shard<0>>(made<Shard<0>, Shard<1>>(mesh, rows)); }));
    CHECK(none([&](const auto& mesh) { redistribute<Replicate, Replicate>(made<Shard<0>, Shard<0>>(mesh, rows)); }));
    CHECK(none([&](const auto& mesh) { redistribute<On<"tp", Shard<1>>>(made<Shard<0>, Shard<0>>(mesh, rows)); }));
    CHECK(none([&](const auto& mesh) { redistribute<Replicate, Shard<0>>(made<Partial<>, Partial<>>(mesh, rows)); }));
    CHECK(
        none([&](const auto& mesh) { redistribute<Replicate, Replicate>(made<Partial<Avg>, Replicate>(mesh, rows)); }));
    CHECK(none([&](const auto& mesh) { redistribute<Shard<1>, Partial<>>(made<Replicate, Replicate>(mesh, rows)); }));
    CHECK(none([&](const auto& mesh) { as_partial<Max>(made<Replicate, Replicate>(mesh, rows)); }));
    CHECK(none([&](const auto& mesh) { made<Partial<>, Shard<0>>(mesh, rows).full_tensor(); }));
  }
}

TEST_CASE("a repeated redistribute that is recorded allocates nothing" * doctest::skip(!COUNTS_ALLOCATIONS)) {
  CHECK(allocations_of([&](const auto& mesh) {
          auto x = made<Shard<0>, Shard<1>>(mesh, 40);
          x.impl()->slot = detail::make_ref<detail::GradSlot>();
          redistribute<Shard<1>, Replicate>(x);
        }) == 0);
}

TEST_CASE("redistribute_into and the exchange itself allocate nothing" * doctest::skip(!COUNTS_ALLOCATIONS)) {
  for (const std::int64_t rows : sizes) {
    CHECK(allocations_of([&](const auto& mesh) {
            auto x = made<Shard<0>, Partial<>>(mesh, rows);
            auto y = made<Replicate, Shard<1>>(mesh, rows);
            redistribute_into(x, y);
          }) == 0);
    std::atomic<std::int64_t> bare{0};
    run_ranks(3, [&](ThreadCommunicator world) {
      std::vector<float> in(static_cast<std::size_t>(rows) * 96), out(in.size() * 3);
      const auto all = [&] {
        world.all_gather<float>(in, out);
        world.all_reduce<float>(in, in, ReduceOp::sum);
        world.reduce_scatter<float>(out, in, ReduceOp::max);
        world.broadcast<float>(in, 1);
        world.barrier();
      };
      all();
      const std::int64_t before = allocations;
      all();
      bare += allocations - before;
    });
    CHECK(bare.load() == 0);
  }
}

TEST_CASE("a repeated redistribute_all allocates nothing" * doctest::skip(!COUNTS_ALLOCATIONS)) {
  for (const std::int64_t rows : sizes)
    CHECK(allocations_of([&](const auto& mesh) {
            redistribute_all(to<Shard<1>, Shard<0>>(made<Shard<0>, Shard<1>>(mesh, rows)),
                             to<On<"tp", Replicate>>(made<Replicate, Partial<>>(mesh, 12)));
          }) == 0);
}

TEST_CASE("a repeated redistribute_async that all ranks wait for allocates nothing" *
          doctest::skip(!COUNTS_ALLOCATIONS)) {
  for (const std::int64_t rows : sizes)
    CHECK(allocations_of([&](const auto& mesh) {
            auto x = made<Shard<0>, Shard<1>>(mesh, rows);
            auto first = redistribute_async<Shard<1>, Shard<0>>(x);
            auto second = redistribute_async<Replicate, Shard<0>>(x);
            x = decltype(x)();
            second.wait();
            first.wait();
            first.wait_for_readers();
          }) == 0);
}

TEST_CASE("a repeated redistribute to another mesh allocates nothing" * doctest::skip(!COUNTS_ALLOCATIONS)) {
  for (const std::int64_t rows : sizes) {
    std::atomic<std::int64_t> total{0};
    run_ranks(4, [&](ThreadCommunicator world) {
      const auto grid = init_device_mesh<"dp", "tp">(world, {2, 2});
      const auto turned = init_device_mesh<"r">(world, {4}, {.ranks = {2, 3, 1, 0}});
      const auto first = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
      total += allocations_of_turns(world, [&] {
        auto x = made<Shard<0>, Partial<>>(grid, rows);
        x.impl()->slot = detail::make_ref<detail::GradSlot>();
        redistribute<Shard<1>>(x, turned);
        auto y = made<Replicate>(first, rows);
        auto z = made<Replicate, Shard<0>>(grid, rows);
        redistribute_into(y, z);
      });
    });
    CHECK(total.load() == 0);
  }
}
