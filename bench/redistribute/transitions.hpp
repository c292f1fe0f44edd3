// The transitions that bench_redistribute can run, and one timed run of a transition against its bound. Templates over the
// communicator: each kind of ranks is a unit of its own.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <string>
#include <vector>

#include <shardwise/core.hpp>

#include "../support.hpp"
#include "ranks.hpp"
#include "run.hpp"

namespace bench {

using namespace shardwise;

template <class P>
inline constexpr Place place_of{Place::replicate};
template <int D>
inline constexpr Place place_of<Shard<D>>{Place::shard, D};
template <int D, std::int64_t B>
inline constexpr Place place_of<BlockCyclic<D, B>>{Place::cyclic, D, B};
template <>
inline constexpr Place place_of<Partial<>>{Place::partial};

struct Listener : detail::CommListener {
  std::int64_t bytes = 0;
  Listener() {
    outer = detail::trace_state().listeners;
    on_event = [](detail::CommListener& self, const CommEvent& e) { static_cast<Listener&>(self).bytes += e.bytes; };
    detail::trace_state().listeners = this;
  }
  ~Listener() { detail::trace_state().listeners = outer; }
};

template <class World>
std::int64_t agreed(const World& world, std::int64_t of_rank_0) {
  world.template broadcast<std::int64_t>({&of_rank_0, 1}, 0);
  return of_rank_0;
}
template <class World>
std::vector<std::int64_t> gathered(const World& world, std::int64_t mine) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.template all_gather<std::int64_t>({&mine, 1}, all);
  return all;
}
template <class World>
std::int64_t sum_of(const World& world, std::int64_t mine) {
  const auto all = gathered(world, mine);
  return std::accumulate(all.begin(), all.end(), std::int64_t{0});
}
template <class World>
std::int64_t max_of(const World& world, std::int64_t mine) {
  const auto all = gathered(world, mine);
  return *std::max_element(all.begin(), all.end());
}

// Of this rank: a thread, or a process with the threads of its network library.
template <class World>
std::int64_t processor_nanoseconds() {
  constexpr bool is_thread = std::is_same_v<World, ThreadCommunicator>;
  timespec time{};
  clock_gettime(is_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

// Batches of the subject and of the bound in turns. `move` is a redistribute_into; the ranks meet in it. A bound of copies, which
// alone meets nobody, has a barrier with each.
template <class World, class Move>
void take_turns(Run& run, const World& world, const std::byte* from, std::size_t bytes, Bound given, Move&& move) {
  const Memory to = touched_memory(given.run ? 0 : bytes);
  const auto bound = [&] {
    if (given.run) return given.run();
    if (run.against == Against::copy) {
      std::memcpy(to.get(), from, bytes);
      keep(*to);
    }
    world.barrier();
  };
  double best_move = 1e9, best_bound = 1e9;  // short ones come in batches that are long against a time slice
  for (int i = 0; i < 3; ++i) {
    world.barrier();
    best_move = std::min(best_move, seconds([&] { move(); }));
    world.barrier();
    best_bound = std::min(best_bound, seconds(bound));
  }
  const auto wanted = static_cast<std::int64_t>(2e-2 / std::max(best_move, best_bound));
  const std::int64_t batch = agreed(world, std::clamp<std::int64_t>(wanted, 8, 2000));
  double spent = 0;
  const auto goes_on = [&](int i) {
    return i < run.repeat && 2 * run.wall.under(run.settled) <= run.repeat && (i < 5 || spent < run.at_most);
  };
  for (int i = 0; agreed(world, goes_on(i)) != 0; ++i) {
    world.barrier();
    const std::int64_t start = processor_nanoseconds<World>();
    const double moved = seconds([&] {
      for (std::int64_t k = 0; k < batch; ++k) move();
      world.barrier();
    });
    const std::int64_t between = processor_nanoseconds<World>();
    const double copied = seconds([&] {
      for (std::int64_t k = 0; k < batch; ++k) bound();
      if (given.run) world.barrier();
    });
    const std::int64_t end = processor_nanoseconds<World>();
    spent += moved + copied;
    const std::int64_t processor_moved = sum_of(world, between - start),
                       processor_copied = sum_of(world, end - between);
    if (world.rank() != 0) continue;
    const auto n = static_cast<double>(batch);
    run.wall.add(moved / n, copied / n);
    run.processor.add(static_cast<double>(processor_moved),
                      static_cast<double>(std::max<std::int64_t>(processor_copied, 1)));
  }
}

template <class... P>
struct Places {};

template <class T, class World, class Mesh, class... From, class... To>
void run_on(Run& run, const World& world, const Mesh& mesh, const char* name, const std::vector<int>& sizes,
            Places<From...>, Places<To...>) {
  const Held before({place_of<From>...}, sizes, world.rank(), run.shape);
  const Held after({place_of<To>...}, sizes, world.rank(), run.shape);
  using X = DTensor<T, 2, Mesh, From...>;
  const Memory own = touched_memory(run.staged ? static_cast<std::size_t>(before.elements()) * sizeof(T) : 0);
  X x = [&] {
    if (!run.staged) return X(zeros<T, From...>(mesh, {run.shape[0], run.shape[1]}));
    const auto part =
        Tensor<T, 2>::view(reinterpret_cast<T*>(own.get()), {static_cast<std::int64_t>(before.index[0].size()),
                                                             static_cast<std::int64_t>(before.index[1].size())});
    return X(from_local<From...>(part, mesh, {.global_shape = Shape<2>{run.shape[0], run.shape[1]}}));
  }();
  auto y = zeros<T, To...>(mesh, {run.shape[0], run.shape[1]});
  if (x.size() != before.elements() || y.size() != after.elements()) {
    std::fprintf(stderr, "bench_redistribute: a local part has another size than expected\n");
    std::exit(1);
  }
  const std::vector<T> terms = Values<T>::table(before.term, 0);
  T* const in = x.data();
  before.for_each([&](std::int64_t at, std::int64_t row, std::int64_t column) {
    in[at] = terms[static_cast<std::size_t>(Values<T>::base(row, column))];
  });
  std::memset(static_cast<void*>(y.data()), 0x5a, y.bytes());

  std::int64_t received = 0;
  {
    const Listener listener;
    redistribute_into(x, y);
    received = listener.bytes;
  }
  received = max_of(world, received);
  const std::size_t bytes = std::max(x.bytes(), y.bytes());
  const std::int64_t bound_bytes = max_of(world, static_cast<std::int64_t>(bytes));
  Bound bound;
  if (run.against == Against::exchange || run.against == Against::collective)
    bound = run.make_bound(run.against, {name, received, run.shape, static_cast<std::int64_t>(sizeof(T))});
  const Memory extra = touched_memory(x.bytes() == bytes ? 0 : bytes);
  const std::byte* from = x.bytes() == bytes ? reinterpret_cast<const std::byte*>(x.data()) : extra.get();
  take_turns(run, world, from, bytes, bound, [&] { redistribute_into(x, y); });

  const std::vector<T> results = Values<T>::table(0, before.terms);
  std::int64_t wrong = 0;
  const T* const out = y.data();
  after.for_each([&](std::int64_t at, std::int64_t row, std::int64_t column) {
    if (!(out[at] == results[static_cast<std::size_t>(Values<T>::base(row, column))])) ++wrong;
  });
  wrong = sum_of(world, wrong);
  if (world.rank() != 0) return;
  run.wrong = wrong;
  run.received_bytes = received;
  run.bound_bytes = bound_bytes;
  run.note = bound.note;
  run.bound = bound.run ? bound.name : against_names[static_cast<int>(run.against)];
}

template <class T, class World, class From, class To>
struct OnMesh;
template <class T, class World, class From, class To>
struct OnMesh<T, World, Places<From>, Places<To>> {
  static void run(Run& run, const World& world, const char* name) {
    const auto mesh = init_device_mesh<"x">(world, {world.size()});
    if (world.rank() == 0) run.mesh = std::to_string(world.size());
    run_on<T>(run, world, mesh, name, {world.size()}, Places<From>{}, Places<To>{});
  }
};
template <class T, class World, class F1, class F2, class T1, class T2>
struct OnMesh<T, World, Places<F1, F2>, Places<T1, T2>> {
  static void run(Run& run, const World& world, const char* name) {
    int rows = 1;  // as square as it gets
    for (int r = 1; r * r <= world.size(); ++r)
      if (world.size() % r == 0) rows = r;
    const int columns = world.size() / rows;
    const auto mesh = init_device_mesh<"y", "x">(world, {rows, columns});
    if (world.rank() == 0) run.mesh = std::to_string(rows) + "x" + std::to_string(columns);
    run_on<T>(run, world, mesh, name, {rows, columns}, Places<F1, F2>{}, Places<T1, T2>{});
  }
};

template <class World>
struct Transition : TransitionName {
  void (*run[dtype_count])(Run&, const World&, const char* name);
};
// Between threads of all types; else of two, since how a type is moved does not depend on the ranks.
template <class World, class From, class To>
constexpr Transition<World> transition_of(const char* name, double bytes) {
  Transition<World> t{{name, bytes}, {&OnMesh<float, World, From, To>::run, &OnMesh<double, World, From, To>::run}};
  if constexpr (std::is_same_v<World, ThreadCommunicator>) {
    t.run[2] = &OnMesh<bfloat16, World, From, To>::run;
    t.run[3] = &OnMesh<std::int64_t, World, From, To>::run;
  }
  return t;
}

// `bytes` for n ranks: shards count as one of n.
template <class World>
const std::vector<Transition<World>>& transitions_of() {
  using R = Places<Replicate>;
  using P = Places<Partial<>>;
  using S0 = Places<Shard<0>>;
  using S1 = Places<Shard<1>>;
  using C1 = Places<BlockCyclic<1, 64>>;
  using W = World;
  static const std::vector<Transition<World>> all = {
      transition_of<W, S0, S1>("S0->S1", 0),
      transition_of<W, S1, S0>("S1->S0", 0),
      transition_of<W, S0, R>("S0->R", 3),
      transition_of<W, S1, R>("S1->R", 3),
      transition_of<W, P, R>("P->R", 3),
      transition_of<W, P, S0>("P->S0", 2),
      transition_of<W, P, S1>("P->S1", 2),
      transition_of<W, R, S0>("R->S0", 2),
      transition_of<W, R, S1>("R->S1", 2),
      transition_of<W, C1, S0>("BlockCyclic<1,64>->S0", 0),
      transition_of<W, S0, C1>("S0->BlockCyclic<1,64>", 0),
      transition_of<W, Places<Shard<0>, Shard<1>>, Places<Shard<1>, Shard<0>>>("(S0,S1)->(S1,S0)", 0),
      transition_of<W, Places<Shard<0>, Shard<1>>, Places<Replicate, Replicate>>("(S0,S1)->(R,R)", 3),
      transition_of<W, Places<Partial<>, Partial<>>, Places<Shard<0>, Shard<1>>>("(P,P)->(S0,S1)", 2),
  };
  return all;
}
template <class World>
std::vector<TransitionName> names_of_transitions() {
  const auto& all = transitions_of<World>();
  return {all.begin(), all.end()};
}

}  // namespace bench
