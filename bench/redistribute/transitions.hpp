// The transitions that bench_redistribute can run, what each rank holds before and after them (worked out here by lists of
// indices, not by the library), and one timed run of a transition against its bound.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <shardwise/core.hpp>

#include "../support.hpp"

namespace bench {

using namespace shardwise;
using World = ThreadCommunicator;

// What is asked of a run, and what came of it; all ranks share it, rank 0 writes.
struct Run {
  std::array<std::int64_t, 2> shape{};
  int ranks = 0;
  int repeat = 15;
  double at_most = 1e9;  // seconds for all pairs; five are run in any case
  bool against_barrier = false;  // the bound is a barrier of the same ranks

  Pairs wall;  // seconds a repetition
  Pairs processor;  // of all ranks: what other users of a shared machine disturb less
  std::int64_t bound_bytes = 0;  // max(local input, local output) of the largest rank
  std::int64_t received_bytes = 0;  // by the rank that receives most
  std::int64_t wrong = 0;  // elements, on all ranks together
  std::string mesh;
};

// One placement, as far as the bench needs it.
struct Place {
  enum Kind { replicate, shard, cyclic, partial } kind;
  int dim = 0;
  std::int64_t block = 0;
};
template <class P>
inline constexpr Place place_of{Place::replicate};
template <int D>
inline constexpr Place place_of<Shard<D>>{Place::shard, D};
template <int D, std::int64_t B>
inline constexpr Place place_of<BlockCyclic<D, B>>{Place::cyclic, D, B};
template <>
inline constexpr Place place_of<Partial<>>{Place::partial};

// Which rows and columns a rank holds, which of how many terms.
struct Held {
  std::vector<std::int64_t> index[2];
  int term = 0;
  int terms = 1;

  Held(const std::vector<Place>& places, const std::vector<int>& mesh, int rank,
       const std::array<std::int64_t, 2>& shape) {
    for (std::size_t d = 0; d < 2; ++d) {
      index[d].resize(static_cast<std::size_t>(shape[d]));
      std::iota(index[d].begin(), index[d].end(), std::int64_t{0});
    }
    int below = std::accumulate(mesh.begin(), mesh.end(), 1, std::multiplies<>());
    for (std::size_t a = 0; a < places.size(); ++a) {
      below /= mesh[a];
      const std::int64_t me = rank / below % mesh[a], n = mesh[a];
      if (places[a].kind == Place::partial) {
        term = term * mesh[a] + static_cast<int>(me);
        terms *= mesh[a];
        continue;
      }
      if (places[a].kind == Place::replicate) continue;
      std::vector<std::int64_t>& all = index[places[a].dim];
      const auto size = static_cast<std::int64_t>(all.size());
      const std::int64_t block = places[a].kind == Place::shard ? (size + n - 1) / n : places[a].block;
      std::vector<std::int64_t> mine;
      for (std::int64_t i = 0; i < size; ++i)
        if (i / block % n == me) mine.push_back(all[static_cast<std::size_t>(i)]);
      all = mine;
    }
  }
  std::int64_t elements() const { return static_cast<std::int64_t>(index[0].size() * index[1].size()); }

  // f(position, row, column) for all that is held, in the order of the local tensor.
  template <class F>
  void for_each(F&& f) const {
    std::int64_t at = 0;
    for (const std::int64_t row : index[0])
      for (const std::int64_t column : index[1]) f(at++, row, column);
  }
};

// Small whole numbers, so that sums are exact in every element type; each rank has another term.
template <class T>
struct Values {
  static constexpr int modulus = sizeof(T) == 2 ? 13 : 1021;
  static int base(std::int64_t row, std::int64_t column) {
    return static_cast<int>((row * 31 + column * 17) % modulus);
  }
  static int term(int base, int rank) { return (base + 7 * rank) % modulus; }
  static T convert(int v) {
    if constexpr (std::is_arithmetic_v<T>)
      return static_cast<T>(v);
    else
      return T(static_cast<float>(v));
  }
  // table()[base]: what `rank` holds; with `terms`: the sum of so many ranks' terms.
  static std::vector<T> table(int rank, int terms) {
    std::vector<T> t;
    for (int b = 0; b < modulus; ++b) {
      int v = terms == 0 ? term(b, rank) : 0;
      for (int r = 0; r < terms; ++r) v += term(b, r);
      t.push_back(convert(v));
    }
    return t;
  }
};

struct Listener : detail::CommListener {
  std::int64_t bytes = 0;
  Listener() {
    outer = detail::trace_state().listeners;
    on_event = [](detail::CommListener& self, const CommEvent& e) { static_cast<Listener&>(self).bytes += e.bytes; };
    detail::trace_state().listeners = this;
  }
  ~Listener() { detail::trace_state().listeners = outer; }
};

using Memory = std::unique_ptr<std::byte, decltype(&std::free)>;
inline Memory touched_memory(std::size_t bytes) {  // by the rank that uses it
  Memory m(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64)), &std::free);
  if (m == nullptr) throw std::bad_alloc();
  std::memset(m.get(), 1, bytes);
  return m;
}

inline std::int64_t agreed(const World& world, std::int64_t of_rank_0) {
  world.broadcast<std::int64_t>({&of_rank_0, 1}, 0);
  return of_rank_0;
}
inline std::vector<std::int64_t> gathered(const World& world, std::int64_t mine) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather<std::int64_t>({&mine, 1}, all);
  return all;
}
inline std::int64_t sum_of(const World& world, std::int64_t mine) {
  const auto all = gathered(world, mine);
  return std::accumulate(all.begin(), all.end(), std::int64_t{0});
}
inline std::int64_t max_of(const World& world, std::int64_t mine) {
  const auto all = gathered(world, mine);
  return *std::max_element(all.begin(), all.end());
}

// Batches of the subject and of the bound in turns. `move` is a redistribute_into; the ranks meet in it. The bound is
// a memcpy and a barrier, or a barrier alone.
template <class Move>
void take_turns(Run& run, const World& world, const std::byte* from, std::size_t bytes, Move&& move) {
  const Memory to = touched_memory(bytes);
  const auto bound = [&] {
    if (!run.against_barrier) {
      std::memcpy(to.get(), from, bytes);
      keep(*to);
    }
    world.barrier();
  };
  double best_move = 1e9, best_bound = 1e9;  // short ones come in batches that are long against a time slice
  for (int i = 0; i < 3; ++i) {
    world.barrier();
    best_move = std::min(best_move, seconds([&] { move(); }));
    best_bound = std::min(best_bound, seconds(bound));
  }
  const auto wanted = static_cast<std::int64_t>(2e-2 / std::max(best_move, best_bound));
  const std::int64_t batch = agreed(world, std::clamp<std::int64_t>(wanted, 8, 2000));
  double spent = 0;
  for (int i = 0; agreed(world, i < run.repeat && (i < 5 || spent < run.at_most)) != 0; ++i) {
    world.barrier();
    const std::clock_t start = std::clock();
    const double moved = seconds([&] {
      for (std::int64_t k = 0; k < batch; ++k) move();
      world.barrier();
    });
    const std::clock_t between = std::clock();
    const double copied = seconds([&] {
      for (std::int64_t k = 0; k < batch; ++k) bound();
    });
    const std::clock_t end = std::clock();
    spent += moved + copied;
    if (world.rank() != 0) continue;
    const auto n = static_cast<double>(batch);
    run.wall.add(moved / n, copied / n);
    run.processor.add(static_cast<double>(between - start),
                      static_cast<double>(std::max<std::clock_t>(end - between, 1)));
  }
}

template <class... P>
struct Places {};

template <class T, class Mesh, class... From, class... To>
void run_on(Run& run, const World& world, const Mesh& mesh, const std::vector<int>& sizes, Places<From...>,
            Places<To...>) {
  const Held before({place_of<From>...}, sizes, world.rank(), run.shape);
  const Held after({place_of<To>...}, sizes, world.rank(), run.shape);
  auto x = zeros<T, From...>(mesh, {run.shape[0], run.shape[1]});
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
  const std::size_t bytes = std::max(x.bytes(), y.bytes());
  const Memory extra = touched_memory(x.bytes() == bytes ? 0 : bytes);
  const std::byte* from = x.bytes() == bytes ? reinterpret_cast<const std::byte*>(x.data()) : extra.get();
  take_turns(run, world, from, bytes, [&] { redistribute_into(x, y); });

  const std::vector<T> results = Values<T>::table(0, before.terms);
  std::int64_t wrong = 0;
  const T* const out = y.data();
  after.for_each([&](std::int64_t at, std::int64_t row, std::int64_t column) {
    if (!(out[at] == results[static_cast<std::size_t>(Values<T>::base(row, column))])) ++wrong;
  });
  wrong = sum_of(world, wrong);
  received = max_of(world, received);
  const std::int64_t bound_bytes = max_of(world, static_cast<std::int64_t>(bytes));
  if (world.rank() != 0) return;
  run.wrong = wrong;
  run.received_bytes = received;
  run.bound_bytes = bound_bytes;
}

template <class T, class From, class To>
struct OnMesh;
template <class T, class From, class To>
struct OnMesh<T, Places<From>, Places<To>> {
  static void run(Run& run, const World& world) {
    const auto mesh = init_device_mesh<"x">(world, {world.size()});
    if (world.rank() == 0) run.mesh = std::to_string(world.size());
    run_on<T>(run, world, mesh, {world.size()}, Places<From>{}, Places<To>{});
  }
};
template <class T, class F1, class F2, class T1, class T2>
struct OnMesh<T, Places<F1, F2>, Places<T1, T2>> {
  static void run(Run& run, const World& world) {
    int rows = 1;  // as square as it gets
    for (int r = 1; r * r <= world.size(); ++r)
      if (world.size() % r == 0) rows = r;
    const int columns = world.size() / rows;
    const auto mesh = init_device_mesh<"y", "x">(world, {rows, columns});
    if (world.rank() == 0) run.mesh = std::to_string(rows) + "x" + std::to_string(columns);
    run_on<T>(run, world, mesh, {rows, columns}, Places<F1, F2>{}, Places<T1, T2>{});
  }
};

inline constexpr const char* dtype_names[] = {"float", "double", "bfloat16", "int64"};
inline constexpr std::int64_t dtype_sizes[] = {4, 8, 2, 8};
inline constexpr std::size_t dtype_count = 4;

struct Transition {
  const char* name;
  double bytes;  // a rank's memory in global tensors, the most that any needs: input, output, both sides of the bound
  void (*run[dtype_count])(Run&, const World&);
};
template <class From, class To>
constexpr Transition transition_of(const char* name, double bytes) {
  return {name,
          bytes,
          {&OnMesh<float, From, To>::run, &OnMesh<double, From, To>::run, &OnMesh<bfloat16, From, To>::run,
           &OnMesh<std::int64_t, From, To>::run}};
}

// `bytes` for n ranks: shards count as one of n.
inline const std::vector<Transition>& transitions() {
  using R = Places<Replicate>;
  using P = Places<Partial<>>;
  using S0 = Places<Shard<0>>;
  using S1 = Places<Shard<1>>;
  using C1 = Places<BlockCyclic<1, 64>>;
  static const std::vector<Transition> all = {
      transition_of<S0, S1>("S0->S1", 0),
      transition_of<S1, S0>("S1->S0", 0),
      transition_of<S0, R>("S0->R", 3),
      transition_of<S1, R>("S1->R", 3),
      transition_of<P, R>("P->R", 3),
      transition_of<P, S0>("P->S0", 2),
      transition_of<P, S1>("P->S1", 2),
      transition_of<R, S0>("R->S0", 2),
      transition_of<R, S1>("R->S1", 2),
      transition_of<C1, S0>("BlockCyclic<1,64>->S0", 0),
      transition_of<S0, C1>("S0->BlockCyclic<1,64>", 0),
      transition_of<Places<Shard<0>, Shard<1>>, Places<Shard<1>, Shard<0>>>("(S0,S1)->(S1,S0)", 0),
      transition_of<Places<Shard<0>, Shard<1>>, Places<Replicate, Replicate>>("(S0,S1)->(R,R)", 3),
      transition_of<Places<Partial<>, Partial<>>, Places<Shard<0>, Shard<1>>>("(P,P)->(S0,S1)", 2),
  };
  return all;
}

}  // namespace bench
