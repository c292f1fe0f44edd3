// Random moves over shapes, meshes of 1 to 4 axes, placements and element types: planner and executor against a brute-force
// oracle. Over values: a case costs no instantiation.
//
// Every case has a seed of its own, which a failure names: SHARDWISE_TEST_SEED=<it> SHARDWISE_TEST_RANDOM_CASES=1 repeats it.
#include <doctest/doctest.h>

#include <complex>
#include <cstdlib>
#include <iterator>

#include <shardwise/backends/thread.hpp>
#include <shardwise/redistribute/plan_redistribute.hpp>
#include <shardwise/redistribute/redistribute.hpp>

#include "redistribute/oracle.hpp"
#include "redistribute/random_case.hpp"
#include "support/limited_threads.hpp"
#include "support/slow_build.hpp"

using namespace shardwise;
using namespace test;

namespace {

// The last two are what ranks do that are processes of one host, and of several.
enum class Path { as_users_move, straight_from_peers, axis_by_axis, reading_peers, in_messages };

// The terms of a sum are free: step by step, the chunk that a rank keeps as its term may be another one than at once.
Path random_path(SplitMix& random, const Case& c) {
  const auto path = static_cast<Path>(random.below(5));
  for (std::size_t a = 0; a < c.from.size(); ++a)
    if (c.from[a].is_shard() && c.to[a].is_partial() && path == Path::axis_by_axis) return Path::as_users_move;
  return path;
}

// Moves one case along a path; adds what is wrong with it. Gives the elements that this rank received.
template <class T, class Mesh>
std::int64_t move_and_compare(const Mesh& mesh, const Case& c, Path path, std::uint64_t seed, Failures& failures) {
  constexpr std::size_t n = Mesh::ndim;
  const Index me = coordinate_of(mesh);
  const std::vector<T> in = elements<T>(source(c, me));
  const std::vector<T> right = elements<T>(expected(c, me));
  std::vector<T> out(right.size(), element<T>(99));
  const auto from = list_of<n>(c.from), to = list_of<n>(c.to);
  const detail::Extents global = extents_of(c.global);
  const detail::MoveView view{from.data(), to.data(), mesh.shape().data(), static_cast<int>(n)};
  const auto wrong = [&](const std::string& what) {
    failures.add("seed " + std::to_string(seed) + ": " + what + ": " + text(c) + " as " + to_string(dtype_of<T>) +
                 " at " + text(me));
  };
  const Counter counter;
  int collectives = 1;
  if (path == Path::axis_by_axis) {
    // Messages alone cost something: whatever saves one is done.
    const RedistributePlan plan = detail::plan(view, &global, {.cost = {1, 0, 0}});
    if (plan.size() == 0) return 0;
    collectives = plan.collectives();
    detail::execute_plan(mesh, plan, global, dtype_of<T>, in.data(), out.data());
  } else if (path != Path::as_users_move) {
    const detail::MovePlan plan(view, mesh.grid().coordinate.data(), global);
    if (plan.kind().collective == Collective::none) return 0;
    const auto& group = mesh.group(plan.kind().axes);
    const auto move_over = [&](const auto& ranks) {
      detail::move_over(ranks, plan, mesh.grid().coordinate.data(), global, dtype_of<T>, in.data(), out.data(), 0);
    };
    if (path == Path::straight_from_peers)
      move_over(group);
    else if (path == Path::reading_peers)
      move_over(ReadOnlyThreads(group));
    else
      move_over(MessagingThreads(group));
  } else {
    collectives = detail::plan(view, &global, {.cost = shared_memory_cost}).collectives();
    if (collectives > 1) wrong("several steps without need");
    detail::execute(mesh, from, to, global, dtype_of<T>, in.data(), out.data());
  }
  if (out != right) wrong("not what the oracle says");
  if (counter.total != collectives) wrong("other collectives than planned");
  return counter.bytes / static_cast<std::int64_t>(sizeof(T));
}

template <class Mesh>
std::int64_t run_one(const Mesh& mesh, std::uint64_t seed, Failures& failures, Case& c) {
  SplitMix random{seed * 4096 + static_cast<std::uint64_t>(mesh.size())};
  const std::int64_t type = random.below(16);
  c = random_case(random, Index(mesh.shape().begin(), mesh.shape().end()), type != 0);
  const Path path = random_path(random, c);
  switch (type) {
    case 0: return move_and_compare<std::complex<float>>(mesh, c, path, seed, failures);
    case 1: return move_and_compare<bfloat16>(mesh, c, path, seed, failures);
    case 2: return move_and_compare<std::int64_t>(mesh, c, path, seed, failures);
    case 3:
    case 4:
    case 5: return move_and_compare<float>(mesh, c, path, seed, failures);
    default: return move_and_compare<double>(mesh, c, path, seed, failures);
  }
}

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* given = std::getenv(name);
  return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
}

constexpr bool fewer = slow_build || !optimised;

// How many cases of those that a fast build runs.
int scaled(int count) {
  const auto given = number_from("SHARDWISE_TEST_RANDOM_CASES", 0);
  return given > 0 ? static_cast<int>(given) : fewer ? count / 40 + 1 : count;
}

int cases_run = 0;

template <Name... Axes, std::size_t N>
void cases(const std::int64_t (&shape)[N], int wanted) {
  const int count = scaled(wanted);
  const std::uint64_t first = number_from("SHARDWISE_TEST_SEED", 1);
  Failures failures;
  int ranks = 1;
  for (const std::int64_t n : shape) ranks *= static_cast<int>(n);
  // What the busiest rank received, which the plan says beforehand.
  std::vector<std::atomic<std::int64_t>> most(static_cast<std::size_t>(count));
  run_ranks(ranks, [&](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<Axes...>(world, shape);
    for (int i = 0; i < count; ++i) {
      Case c;
      const std::int64_t received = run_one(mesh, first + static_cast<std::uint64_t>(i), failures, c);
      auto& busiest = most[static_cast<std::size_t>(i)];
      std::int64_t known = busiest.load();
      while (received > known && !busiest.compare_exchange_weak(known, received)) {
      }
    }
  });
  for (int i = 0; i < count; ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    SplitMix random{seed * 4096 + static_cast<std::uint64_t>(ranks)};
    const std::int64_t type = random.below(16);
    const Case c = random_case(random, Index(std::begin(shape), std::end(shape)), type != 0);
    if (random_path(random, c) == Path::axis_by_axis) continue;  // its steps may be largest on different ranks
    const auto from = list_of<N>(c.from), to = list_of<N>(c.to);
    const detail::Extents global = extents_of(c.global);
    const RedistributePlan plan = detail::plan({from.data(), to.data(), c.mesh.data(), static_cast<int>(N)}, &global,
                                               {.cost = shared_memory_cost});
    if (plan.elements() != most[static_cast<std::size_t>(i)].load())
      failures.add("seed " + std::to_string(seed) + ": " + std::to_string(most[static_cast<std::size_t>(i)].load()) +
                   " elements received, " + std::to_string(plan.elements()) + " planned: " + text(c));
  }
  cases_run += count;
  INFO(failures.count(), " failures\n", failures.all());
  CHECK(failures.count() == 0);
}

}  // namespace

TEST_CASE("random moves on one axis are what the oracle says") {
  cases<"a">({1}, 500);
  cases<"a">({2}, 9000);
  cases<"a">({3}, 9000);
  cases<"a">({4}, 6000);
  cases<"a">({5}, 3000);
  cases<"a">({7}, 1000);
}

TEST_CASE("random moves on two axes are one exchange, or planned axis by axis, and what the oracle says") {
  cases<"a", "b">({2, 2}, 22000);
  cases<"a", "b">({2, 3}, 6000);
  cases<"a", "b">({3, 2}, 6000);
  cases<"a", "b">({4, 2}, 2500);
  cases<"a", "b">({3, 1}, 5000);
  cases<"a", "b">({1, 4}, 3000);
}

TEST_CASE("random moves on three axes are one exchange, or planned axis by axis, and what the oracle says") {
  cases<"a", "b", "c">({2, 1, 2}, 6000);
  cases<"a", "b", "c">({2, 2, 2}, 6000);
  cases<"a", "b", "c">({2, 1, 3}, 4000);
  cases<"a", "b", "c">({1, 3, 1}, 2000);
  cases<"a", "b", "c">({3, 2, 2}, 1000);
}

TEST_CASE("random moves on four axes are one exchange, or planned axis by axis, and what the oracle says") {
  cases<"a", "b", "c", "d">({2, 1, 2, 1}, 5000);
  cases<"a", "b", "c", "d">({1, 2, 2, 2}, 3000);
  cases<"a", "b", "c", "d">({2, 1, 1, 3}, 2000);
  cases<"a", "b", "c", "d">({2, 2, 2, 2}, 600);
  CHECK((cases_run > 100000 || fewer || std::getenv("SHARDWISE_TEST_RANDOM_CASES") != nullptr));
}
