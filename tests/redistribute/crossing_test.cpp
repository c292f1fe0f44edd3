// Moves to another mesh in two steps, as where messages cost something: the replicas of a target read a share each and gather the
// rest. Values on threads against the oracle; what crosses in dry runs against a count element by element.
#include <shardwise/core.hpp>
#include <shardwise/comm/dry_run.hpp>
#include <shardwise/testing/doctest.hpp>

#include <algorithm>
#include <map>
#include <numeric>
#include <type_traits>
#include <vector>

#include "redistribute/oracle.hpp"
#include "redistribute/two_meshes.hpp"
#include "redistribute/values.hpp"
#include "support/limited_threads.hpp"

using namespace shardwise;
using namespace test;

namespace {

// The ranks of the target that want the same as this one, as the placements say.
std::vector<int> replicas_of(int rank, const Plan& to) {
  const Index mine = to.coordinate(to.find(rank));
  std::vector<int> same;
  for (std::size_t i = 0; i < to.ranks.size(); ++i) {
    const Index other = to.coordinate(static_cast<int>(i));
    bool alike = true;
    for (std::size_t a = 0; a < mine.size(); ++a)
      alike = alike && (mine[a] == other[a] || !to.placements[a].is_split());
    if (alike) same.push_back(to.ranks[i]);
  }
  return same;
}

// The term of each element that a rank of the source holds, counted over its pending axes.
std::int64_t term_of(int rank, const Plan& from) {
  const Index c = from.coordinate(from.find(rank));
  std::int64_t term = 0;
  for (std::size_t a = 0; a < c.size(); ++a)
    if (from.placements[a].is_partial()) term = term * from.shape[a] + c[a];
  return term;
}
std::int64_t terms_of(const Plan& from) {
  std::int64_t n = 1;
  for (std::size_t a = 0; a < from.shape.size(); ++a)
    if (from.placements[a].is_partial()) n *= from.shape[a];
  return n;
}

// Elements, and terms of a pending reduction, that these ranks want and none of them holds.
std::int64_t must_cross(const std::vector<int>& ranks, const Plan& from, const Plan& to, const Index& global) {
  std::int64_t n = 0;
  for_each_index(to.lists(ranks[0], global), [&](const Index& index) {
    std::vector<bool> here(static_cast<std::size_t>(terms_of(from)), false);
    for (const int r : ranks)
      if (from.find(r) >= 0 && holds(from.lists(r, global), index))
        here[static_cast<std::size_t>(term_of(r, from))] = true;
    n += std::count(here.begin(), here.end(), false);
  });
  return n;
}

// The least that crosses at all, among these ranks too: every term but one that a rank adds to, every element to each rank
// that does not have it or add it up.
std::int64_t must_move(const std::vector<int>& ranks, const Plan& from, const Plan& to, const Index& global) {
  std::int64_t n = 0;
  for_each_index(to.lists(ranks[0], global), [&](const Index& index) {
    std::int64_t holders = 0;
    for (const int r : ranks) holders += from.find(r) >= 0 && holds(from.lists(r, global), index) ? 1 : 0;
    const auto size = static_cast<std::int64_t>(ranks.size());
    if (terms_of(from) > 1)
      n += terms_of(from) - (holders > 0 ? 1 : 0) + size - 1;
    else
      n += size - holders;
  });
  return n;
}

detail::GridView view_of(const Plan& plan, int rank, Index& coordinate) {
  const int at = plan.find(rank);
  if (at >= 0) coordinate = plan.coordinate(at);
  detail::GridView view{plan.placements.data(), plan.shape.data(), at >= 0 ? coordinate.data() : nullptr,
                        static_cast<int>(plan.shape.size()), &plan.ranks};
  return view;
}

// Who sends how many elements to a rank in the first step.
std::map<int, std::int64_t> heard_by(int rank, const Plan& from, const Plan& to, const Index& global, bool shared) {
  Index a, b;
  const detail::CrossMove move(view_of(from, rank, a), view_of(to, rank, b), detail::MeetingPlace::world, rank, 1024,
                               extents_of(global), DType::float64, shared);
  std::map<int, std::int64_t> heard;
  if (move.crosses()) move.for_each_message([&](int sender, std::int64_t n) { heard[sender] += n; });
  return heard;
}

std::string words(const Index& global, const Plan& from, const Plan& to) {
  return text(global) + " " + text(from) + " -> " + text(to);
}

template <class A, class B>
void check_values(const ThreadCommunicator& world, const A& a, const B& b, const Plan& from, const Plan& to,
                  const Index& global, std::int64_t salt, Failures& failures) {
  std::vector<double> in;
  if (from.find(world.rank()) >= 0)
    in = source(Case{from.shape, global, from.placements, from.placements, salt},
                from.coordinate(from.find(world.rank())));
  const Expected e = expected_on(world.rank(), from, to, global, salt);
  std::vector<double> out(e.values.size() + 1, 99);
  const Counter counter;
  detail::execute_across<detail::Replicas::always_share>(a, list_of<A::ndim>(from.placements), b,
                                                         list_of<B::ndim>(to.placements), extents_of(global),
                                                         DType::float64, in.data(), out.data());
  const bool bounded = out.back() == 99;
  out.pop_back();
  const auto where = [&] { return words(global, from, to) + " at " + std::to_string(world.rank()); };
  if (out != e.values || !bounded) failures.add(where());
  if (counter.total > 2) failures.add("collectives: " + where());
  // A pending sum apart, what is missing comes once.
  if (terms_of(from) == 1 && counter.bytes != 8 * e.received)
    failures.add("bytes " + std::to_string(counter.bytes) + ": " + where());
}

// The same where ranks see nothing of each other but messages; `shared`: in two steps.
template <class B>
void check_messages(const ThreadCommunicator& world, const B& b, const Plan& from, const Plan& to, const Index& global,
                    std::int64_t salt, bool shared, Failures& failures) {
  Index at_a, at_b;
  const detail::GridView source_view = view_of(from, world.rank(), at_a), target_view = view_of(to, world.rank(), at_b);
  if (detail::relabelling(source_view, target_view, extents_of(global)) != detail::Relabelling::none) return;
  std::vector<double> in;
  if (from.find(world.rank()) >= 0)
    in = source(Case{from.shape, global, from.placements, from.placements, salt},
                from.coordinate(from.find(world.rank())));
  const Expected e = expected_on(world.rank(), from, to, global, salt);
  std::vector<double> out(e.values.size() + 1, 99);
  const detail::CrossMove move(source_view, target_view, detail::MeetingPlace::world, world.rank(), world.size(),
                               extents_of(global), DType::float64, shared);
  detail::carry_out<true>(
      MessagingThreads(world), move, [&](std::uint32_t axes) { return MessagingThreads(b.group(axes)); },
      DType::float64, in.data(), out.data());
  const bool bounded = out.back() == 99;
  out.pop_back();
  if (out != e.values || !bounded)
    failures.add("in messages: " + words(global, from, to) + " at " + std::to_string(world.rank()));
}

// Every rank alone, then all of them together.
template <class MakeA, class MakeB>
void check_bytes(int n, const MakeA& make_a, const MakeB& make_b, const Plan& from, const Plan& to, const Index& global,
                 Failures& failures) {
  std::vector<std::int64_t> first_step(static_cast<std::size_t>(n), 0);
  std::vector<std::int64_t> all_steps(static_cast<std::size_t>(n), 0);
  bool relabelled = terms_of(from) == 1;
  for (int r = 0; r < n; ++r) relabelled = relabelled && expected_on(r, from, to, global, 0).received == 0;
  for (int r = 0; r < n; ++r) {
    const DryRunCommunicator world(r, n, {.ranks_per_node = 1});
    const auto a = make_a(world);
    const auto b = make_b(world);
    std::int64_t in_size = 1, out_size = 1;
    for (const Index& list : from.lists(r, global)) in_size *= static_cast<std::int64_t>(list.size());
    for (const Index& list : to.lists(r, global)) out_size *= static_cast<std::int64_t>(list.size());
    const std::vector<double> in(static_cast<std::size_t>(in_size));
    std::vector<double> out(static_cast<std::size_t>(out_size));
    detail::execute_across(a, list_of<std::decay_t<decltype(a)>::ndim>(from.placements), b,
                           list_of<std::decay_t<decltype(b)>::ndim>(to.placements), extents_of(global), DType::float64,
                           in.data(), out.data());
    const auto at = static_cast<std::size_t>(r);
    all_steps[at] = world.ledger().total().bytes / 8;
    first_step[at] = all_steps[at] - world.ledger().collective(Collective::all_gather).bytes / 8;
    const auto heard =
        relabelled || to.find(r) < 0 ? std::map<int, std::int64_t>() : heard_by(r, from, to, global, true);
    std::int64_t sum = 0;
    for (const auto& [sender, elements] : heard) sum += elements;
    bool replicated = false;
    for (std::size_t axis = 0; axis < to.shape.size(); ++axis)
      replicated = replicated || (to.shape[axis] > 1 && !to.placements[axis].is_split());
    bool cut = replicated;
    for (const PlacementValue& p : to.placements) cut = cut || p.is_split();
    if (!cut) first_step[at] = all_steps[at];  // one rank gathers: no second step
    if (first_step[at] != sum) failures.add("messages and ledger differ: " + words(global, from, to));
  }
  std::vector<bool> seen(static_cast<std::size_t>(n), false);
  for (const int r : to.ranks) {
    if (seen[static_cast<std::size_t>(r)]) continue;
    const std::vector<int> group = replicas_of(r, to);
    std::int64_t crossed = 0, moved = 0;
    for (const int member : group) {
      seen[static_cast<std::size_t>(member)] = true;
      moved += all_steps[static_cast<std::size_t>(member)];
      if (relabelled) continue;
      for (const auto& [sender, elements] : heard_by(member, from, to, global, true))
        if (std::find(group.begin(), group.end(), sender) == group.end()) crossed += elements;
    }
    const auto where = [&] { return words(global, from, to) + " around " + std::to_string(r); };
    const std::int64_t must = must_cross(group, from, to, global);
    if (crossed != must)
      failures.add(std::to_string(crossed) + " cross instead of " + std::to_string(must) + ": " + where());
    const std::int64_t least = must_move(group, from, to, global);
    if (moved != least)
      failures.add(std::to_string(moved) + " move instead of " + std::to_string(least) + ": " + where());
  }
}

template <class F>
void random_moves(int n, int cases, std::uint64_t seed, F&& f) {
  Random random{seed};
  for (int i = 0; i < cases; ++i) {
    const std::int64_t rank = random.below(12) == 0 ? 0 : 1 + random.below(2);
    Index global;
    for (std::int64_t d = 0; d < rank; ++d) global.push_back(random.below(10));
    const Plan a = random_plan(random, n, 1, rank, true), b = random_plan(random, n, 1, rank, false);
    const Plan c = random_plan(random, n, 2, rank, true), d = random_plan(random, n, 2, rank, false);
    f(i, global, a, b, c, d);
  }
}

}  // namespace

TEST_CASE("moves to another mesh in two steps give what the oracle says") {
  for (const int n : {2, 3, 6, 8}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      random_moves(n, 250, static_cast<std::uint64_t>(n) * 2654435761u + 977,
                   [&](int i, const Index& global, const Plan& a, const Plan& b, const Plan& c, const Plan& d) {
                     const auto ma = make<"x">(world, a);
                     const auto mb = make<"x">(world, b);
                     const auto mc = make<"x", "y">(world, c);
                     const auto md = make<"x", "y">(world, d);
                     check_values(world, ma, mb, a, b, global, i, failures);
                     check_values(world, ma, md, a, d, global, i, failures);
                     check_values(world, mc, mb, c, b, global, i, failures);
                     check_values(world, mc, md, c, d, global, i, failures);
                   });
    });
    INFO(failures.count(), " failures, the first: ", failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("large tensors, read straight out of the others' memory, in two steps") {
  const PlacementValue whole = detail::replicate_value(), rows = detail::shard_value(0);
  const PlacementValue columns = detail::shard_value(1), dealt = detail::block_cyclic_value(1, 3);
  Failures failures;
  run_ranks(6, [&](ThreadCommunicator world) {
    const Index global{97, 101};
    for (const PlacementValue& from : {rows, dealt, whole, detail::partial_value()})
      for (const std::vector<int>& ranks : {std::vector<int>{3, 1}, {0, 5}, {2, 4}}) {
        const Plan line{{4}, {0, 1, 2, 3}, {from}}, few{{2}, ranks, {whole}};
        const Plan grid{{2, 3}, {5, 4, 3, 2, 1, 0}, {whole, columns}}, other{{3, 2}, {0, 1, 2, 3, 4, 5}, {whole, from}};
        const auto a = make<"x">(world, line);
        const auto b = make<"x">(world, few);
        const auto c = make<"x", "y">(world, grid);
        const auto d = make<"x", "y">(world, other);
        check_values(world, a, b, line, few, global, 1, failures);
        check_values(world, a, c, line, grid, global, 2, failures);
        check_values(world, d, c, other, grid, global, 3, failures);
        check_values(world, d, b, other, few, global, 4, failures);
      }
  });
  INFO(failures.count(), " failures, the first: ", failures.first());
  CHECK(failures.count() == 0);
}

TEST_CASE("moves to another mesh give the same in messages") {
  for (const int n : {2, 3, 6, 8}) {
    Failures failures;
    run_ranks(n, [&](ThreadCommunicator world) {
      random_moves(n, 120, static_cast<std::uint64_t>(n) * 2654435761u + 31,
                   [&](int i, const Index& global, const Plan& a, const Plan& b, const Plan& c, const Plan& d) {
                     const auto mb = make<"x">(world, b);
                     const auto md = make<"x", "y">(world, d);
                     for (const bool shared : {false, true}) {
                       check_messages(world, mb, a, b, global, i, shared, failures);
                       check_messages(world, md, a, d, global, i, shared, failures);
                       check_messages(world, mb, c, b, global, i, shared, failures);
                       check_messages(world, md, c, d, global, i, shared, failures);
                     }
                   });
    });
    INFO(failures.count(), " failures, the first: ", failures.first());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("what the replicas of a target do not hold crosses once, and nothing goes where it is") {
  for (const int n : {2, 3, 6, 8}) {
    Failures failures;
    random_moves(n, 120, static_cast<std::uint64_t>(n) * 40503u + 11,
                 [&](int, const Index& global, const Plan& a, const Plan& b, const Plan& c, const Plan& d) {
                   const auto ma = [&](const auto& world) { return make<"x">(world, a); };
                   const auto mb = [&](const auto& world) { return make<"x">(world, b); };
                   const auto mc = [&](const auto& world) { return make<"x", "y">(world, c); };
                   const auto md = [&](const auto& world) { return make<"x", "y">(world, d); };
                   check_bytes(n, ma, mb, a, b, global, failures);
                   check_bytes(n, ma, md, a, d, global, failures);
                   check_bytes(n, mc, mb, c, b, global, failures);
                   check_bytes(n, mc, md, c, d, global, failures);
                 });
    INFO(failures.count(), " failures, the first: ", failures.first());
    CHECK(failures.count() == 0);
  }
}

namespace {

// Bytes that each rank of a world of 8, a node each, receives in the first step and in the second one.
struct Steps {
  std::vector<std::int64_t> exchanged;
  std::vector<std::int64_t> gathered;
};
template <class Program>
Steps steps_of(const Program& program) {
  Steps steps;
  for (int r = 0; r < 8; ++r) {
    const DryRunCommunicator world(r, 8, {.ranks_per_node = 1});
    program(world);
    const std::int64_t gathered = world.ledger().collective(Collective::all_gather).bytes;
    steps.exchanged.push_back(world.ledger().total().bytes - gathered);
    steps.gathered.push_back(gathered);
  }
  return steps;
}
using Bytes = std::vector<std::int64_t>;

// The elements that each rank of the source sends in the first step.
std::map<int, std::int64_t> sent(const Plan& from, const Plan& to, const Index& global, bool shared) {
  std::map<int, std::int64_t> sent;
  for (const int r : from.ranks) sent[r] = 0;
  for (const int r : to.ranks)
    for (const auto& [sender, elements] : heard_by(r, from, to, global, shared)) sent[sender] += elements;
  return sent;
}
bool all_send(const std::map<int, std::int64_t>& sent, std::int64_t elements) {
  return std::all_of(sent.begin(), sent.end(), [&](const auto& s) { return s.second == elements; });
}
std::vector<int> ranks_from(int first, int count) {
  std::vector<int> list(static_cast<std::size_t>(count));
  std::iota(list.begin(), list.end(), first);
  return list;
}

}  // namespace

TEST_CASE("other ranks, fewer and more: each replica reads an equal share, and gathers what the others read or have") {
  const Steps disjoint = steps_of([](const auto& world) {
    const auto a = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
    const auto b = init_device_mesh<"b">(world, {3}, {.ranks = {5, 2, 4}});
    const auto y = redistribute<Replicate>(zeros<double, Shard<0>>(a, {12, 5}), b);
    CHECK(y.size() == (b.is_member() ? 60 : 0));
  });
  CHECK(disjoint.exchanged == Bytes{0, 0, 160, 0, 160, 160, 0, 0});
  CHECK(disjoint.gathered == Bytes{0, 0, 320, 0, 320, 320, 0, 0});

  const Steps subset = steps_of([](const auto& world) {
    const auto a = init_device_mesh<"a">(world, {8});
    const auto b = init_device_mesh<"b">(world, {2}, {.ranks = {1, 0}});
    (void)redistribute<Replicate>(zeros<double, BlockCyclic<0, 1>>(a, {16, 3}), b);
  });
  CHECK(subset.exchanged == Bytes{144, 144, 0, 0, 0, 0, 0, 0});  // six of eight parts, half of them each
  CHECK(subset.gathered == Bytes{192, 192, 0, 0, 0, 0, 0, 0});  // the other half, and the other's own part

  const Steps superset = steps_of([](const auto& world) {
    const auto a = init_device_mesh<"a">(world, {2}, {.ranks = {3, 1}});
    const auto b = init_device_mesh<"b">(world, {4}, {.ranks = {0, 1, 2, 3}});
    (void)redistribute<Replicate>(zeros<double, Shard<0>>(a, {4}), b);
  });
  CHECK(superset.exchanged == Bytes{0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(superset.gathered == Bytes{32, 16, 32, 16, 0, 0, 0, 0});

  const Steps grid = steps_of([](const auto& world) {
    const auto a = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
    const auto b = init_device_mesh<"b", "c">(world, {2, 2}, {.ranks = {4, 5, 6, 7}});
    (void)redistribute<BlockCyclic<1, 1>, Replicate>(zeros<double, Shard<0>>(a, {8, 2}), b);
  });
  CHECK(grid.exchanged == Bytes{0, 0, 0, 0, 32, 32, 32, 32});
  CHECK(grid.gathered == Bytes{0, 0, 0, 0, 32, 32, 32, 32});
}

TEST_CASE("a pending sum crosses to another mesh as each term once, and its result once") {
  const Steps disjoint = steps_of([](const auto& world) {
    const auto a = init_device_mesh<"a">(world, {3}, {.ranks = {0, 1, 2}});
    const auto b = init_device_mesh<"b">(world, {2}, {.ranks = {3, 4}});
    const auto x = from_local<Partial<>>(zeros<double>({a.is_member() ? 10 : 0}), a, {.global_shape = Shape<1>{10}});
    (void)redistribute<Replicate>(x, b);
  });
  CHECK(disjoint.exchanged == Bytes{0, 0, 0, 120, 120, 0, 0, 0});
  CHECK(disjoint.gathered == Bytes{0, 0, 0, 40, 40, 0, 0, 0});
}

TEST_CASE("where messages cost nothing one step does") {
  for (int r = 0; r < 4; ++r) {
    const DryRunCommunicator world(r, 4, {.ranks_per_node = 4});
    const auto a = init_device_mesh<"a">(world, {2}, {.ranks = {0, 1}});
    const auto b = init_device_mesh<"b">(world, {2}, {.ranks = {2, 3}});
    (void)redistribute<Replicate>(zeros<double, Shard<0>>(a, {6}), b);
    CHECK(world.ledger().total().calls == 1);
    CHECK(world.ledger().total().bytes == (b.is_member() ? 48 : 0));
  }
}

TEST_CASE("ranks outside a replicated source read its replicas in equal parts") {
  const auto shard = [](int d) { return detail::shard_value(d); };
  const detail::PlacementValue whole = detail::replicate_value();
  const Plan grid{{2, 2}, {0, 1, 2, 3}, {whole, shard(0)}};
  for (const bool shared : {false, true}) {
    const Plan line{{4}, {4, 5, 6, 7}, {shard(0)}};
    CHECK(all_send(sent(grid, line, {16, 4}, shared), 16));
    const Plan dealt{{4}, {4, 5, 6, 7}, {detail::block_cyclic_value(0, 8)}};  // two of four want anything
    CHECK(all_send(sent(grid, dealt, {32, 4}, shared), 32));
    const Plan turned{{2, 2}, {4, 5, 6, 7}, {shard(1), shard(0)}};
    CHECK(all_send(sent(grid, turned, {16, 4}, shared), 16));
    const Plan columns{{4}, {4, 5, 6, 7}, {shard(1)}};
    CHECK(all_send(sent(grid, columns, {16, 4}, shared), 16));
    // Rank 1 has one part and reads the other one in its own row, of rank 0; rank 4 finds less to do at rank 2.
    const Plan both{{2}, {4, 1}, {shard(1)}};
    const auto loads = sent(grid, both, {16, 4}, shared);
    CHECK((loads == std::map<int, std::int64_t>{{0, 16}, {1, 16}, {2, 16}, {3, 0}}));
  }
  // Replicas of the target share a part: they read it from both replicas of the source.
  const Plan same{{2, 2}, {4, 5, 6, 7}, {whole, shard(0)}};
  CHECK(all_send(sent(grid, same, {16, 4}, false), 32));
  CHECK(all_send(sent(grid, same, {16, 4}, true), 16));
  // So many ranks that nobody follows each read.
  const Plan wide{{2, 96}, ranks_from(0, 192), {whole, shard(0)}};
  const Plan there{{2, 96}, ranks_from(192, 192), {whole, shard(0)}};
  CHECK(all_send(sent(wide, there, {192, 1}, false), 2));
  CHECK(all_send(sent(wide, there, {192, 1}, true), 1));
}
