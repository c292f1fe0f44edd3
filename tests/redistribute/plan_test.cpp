// Plans as text, and as carried out: by ranks that read each other's memory, and by a communicator that prices its messages.
#include <doctest/doctest.h>

#include <optional>

#include <shardwise/core.hpp>

#include "redistribute/oracle.hpp"

using namespace shardwise;
using namespace test;

namespace {

using R = Replicate;
using S0 = Shard<0>;
using S1 = Shard<1>;
using P = Partial<>;

// Threads that say that messages are all that costs.
struct PricedThreads : ThreadCommunicator {
  PricedThreads(const ThreadCommunicator& c) : ThreadCommunicator(c) {}
  CostModel cost_model() const { return {1, 0, 0}; }
  PricedThreads with_axis(Name axis) const { return ThreadCommunicator::with_axis(axis); }
  PricedThreads with_deadline(std::chrono::milliseconds d) const { return ThreadCommunicator::with_deadline(d); }
  std::optional<PricedThreads> split(int color, int key) const {
    const auto part = ThreadCommunicator::split(color, key);
    return part ? std::optional<PricedThreads>(*part) : std::nullopt;
  }
};
static_assert(detail::PricedCommunicator<PricedThreads> && !detail::PricedCommunicator<ThreadCommunicator>);

}  // namespace

TEST_CASE("a plan prints a line a step") {
  CHECK(to_string(plan_redistribute<Placements<S0, S1>, Placements<S1, S0>>({2, 2}, {12, 12})) ==
        "all_to_all over axes 0, 1 (4 ranks): S(0)S(1) -> S(1)S(0), 1 message, 36 elements\n");
  CHECK(to_string(plan_redistribute<Placements<S0>, Placements<R>>({4})) ==
        "all_gather over axis 0 (4 ranks): S(0) -> R\n");
  CHECK(to_string(plan_redistribute<Placements<Partial<Max>>, Placements<S1>>({4}, {8, 8})) ==
        "reduce_scatter(max) over axis 0 (4 ranks): P(max) -> S(1), 2 messages, 48 elements\n");
  CHECK(to_string(plan_redistribute<Placements<R, S0>, Placements<S1, S0>>({2, 2})) == "local: RS(0) -> S(1)S(0)\n");
  CHECK(to_string(plan_redistribute<Placements<S0, P>, Placements<S0, R>>({2, 1})) == "nothing moves\n");
  CHECK(to_string(plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>({32, 32}, {4096, 4096})) ==
        "all_to_all over axes 0, 1 (1024 ranks): S(0)S(0) -> S(1)S(0), 32 messages, 16384 elements\n"
        "all_to_all over axis 1 (32 ranks): S(1)S(0) -> S(1)S(1), 31 messages, 15872 elements\n"
        "axis by axis: fewer messages than one exchange, which costs more here than moving elements again\n");
}

TEST_CASE("the plan on a mesh is what redistribute does there, also axis by axis") {
  Failures failures;
  run_ranks(8, [&](ThreadCommunicator world) {
    const auto threads = init_device_mesh<"a", "b">(world, {4, 2});
    const auto priced = init_device_mesh<"a", "b">(PricedThreads(world), {4, 2});
    const Shape<2> global{24, 16};
    const auto one = plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>(threads, global);
    const auto apart = plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>(priced, global);
    if (one.collectives() != 1 || one.axis_by_axis) failures.add("threads take several steps");
    if (apart.collectives() != 2 || !apart.axis_by_axis) failures.add("priced messages are not saved");
    if (apart.messages() >= plan_redistribute<Placements<S0, S0>, Placements<S1, S1>>({4, 2}, {24, 16}).messages())
      failures.add("axis by axis takes no fewer messages");
    const auto move = [&](const auto& mesh) {
      const Case c{{4, 2},
                   {24, 16},
                   {detail::shard_value(0), detail::shard_value(0)},
                   {detail::shard_value(1), detail::shard_value(1)},
                   3};
      const Index me = coordinate_of(mesh);
      const Counter counter;
      if (moved(mesh, c.from, c.to, c.global, source(c, me)) != expected(c, me)) failures.add("values at " + text(me));
      return counter.total;
    };
    if (move(threads) != 1) failures.add("threads communicate more than once");
    if (move(priced) != 2) failures.add("the plan of priced messages is not followed");
  });
  INFO(failures.all());
  CHECK(failures.count() == 0);
}

namespace {

std::vector<PlacementVector> pairs_of(const std::vector<PlacementValue>& list) {
  std::vector<PlacementVector> all;
  for (const PlacementValue& a : list)
    for (const PlacementValue& b : list) all.push_back({a, b});
  return all;
}

}  // namespace

TEST_CASE("plans of block-cyclic and strided parts are what is communicated") {
  const PlacementValue r = detail::replicate_value(), s0 = detail::shard_value(0), p = detail::partial_value();
  const auto sources = pairs_of({r, s0, p, detail::block_cyclic_value(0, 2), detail::strided_value(1, 2)});
  const auto targets = pairs_of({r, s0, p, detail::block_cyclic_value(0, 3), detail::block_cyclic_value(1, 1)});
  for (const Index& global : {Index{7, 5}, Index{12, 4}}) {
    Failures failures;
    std::vector<std::atomic<std::int64_t>> most(sources.size() * targets.size());
    const auto plan_of = [&](const PlacementVector& from, const PlacementVector& to) {
      const Index mesh{2, 3};
      const detail::Extents extents = extents_of(global);
      return detail::plan({from.data(), to.data(), mesh.data(), 2}, &extents, {.cost = shared_memory_cost});
    };
    run_ranks(6, [&](ThreadCommunicator world) {
      const auto mesh = init_device_mesh<"a", "b">(world, {2, 3});
      const Index me = coordinate_of(mesh);
      std::size_t at = 0;
      for (const PlacementVector& from : sources)
        for (const PlacementVector& to : targets) {
          const Case c{{2, 3}, global, from, to, 9};
          const std::vector<double> in = source(c, me);
          const std::vector<double> right = expected(c, me);
          std::vector<double> out(right.size());
          const Counter counter;
          detail::execute_placed<true>(mesh, list_of<2>(from), list_of<2>(to), extents_of(global), DType::float64,
                                       in.data(), out.data());
          if (out != right) failures.add(text(c) + " at " + text(me));
          if (counter.total != plan_of(from, to).collectives()) failures.add("collectives of " + text(c));
          auto& busiest = most[at++];
          std::int64_t known = busiest.load();
          while (counter.bytes > known && !busiest.compare_exchange_weak(known, counter.bytes)) {
          }
        }
    });
    std::size_t at = 0;
    for (const PlacementVector& from : sources)
      for (const PlacementVector& to : targets) {
        const std::int64_t received = most[at++].load() / 8;
        bool boxes = true;  // which the executor of boxes moves, sharing reductions
        for (const PlacementVector* list : {&from, &to})
          for (const PlacementValue& q : *list) boxes = boxes && !q.is_interleaved();
        if (!boxes && received != plan_of(from, to).elements())
          failures.add(std::to_string(received) + " received, " + std::to_string(plan_of(from, to).elements()) +
                       " planned: " + text(from) + "->" + text(to));
      }
    INFO(failures.count(), " failures\n", failures.all());
    CHECK(failures.count() == 0);
  }
}
