// What every communicator does, whatever its ranks are: each collective against what follows from its words. Made for backends
// whose ranks are other processes too: it knows no test framework, and says what is wrong by an exception.
#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <shardwise/base/dtype.hpp>
#include <shardwise/comm/communicator.hpp>

namespace test {

inline void conform(bool holds, const std::string& what) {
  if (!holds) throw std::logic_error("not so: " + what);
}

// Element i of what rank r brings. Sums of a few are exact in every type, but for `rounding` values.
template <class T>
T brought(int r, std::int64_t i) {
  using Value = std::conditional_t<std::is_integral_v<T>, int, float>;  // a negative float has no byte
  return static_cast<T>(static_cast<Value>((r * 7 + static_cast<int>(i % 13)) % 11 - 3));
}

template <class T>
std::vector<T> brought_by(int r, std::int64_t n) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) v[static_cast<std::size_t>(i)] = brought<T>(r, i);
  return v;
}

// In rank order, as all backends add.
template <class T>
T reduced(int ranks, std::int64_t i, shardwise::ReduceOp op) {
  using A = shardwise::Accumulator<T>;
  A sum = static_cast<A>(brought<T>(0, i));
  for (int r = 1; r < ranks; ++r) {
    const A x = static_cast<A>(brought<T>(r, i));
    if (op == shardwise::ReduceOp::max)
      sum = x > sum ? x : sum;
    else if (op == shardwise::ReduceOp::min)
      sum = x < sum ? x : sum;
    else if (op == shardwise::ReduceOp::product)
      sum = static_cast<A>(sum * x);
    else
      sum = static_cast<A>(sum + x);
  }
  return static_cast<T>(sum);
}

template <class T>
void expect_equal(const std::vector<T>& got, const std::vector<T>& right, const std::string& what) {
  conform(got.size() == right.size(), what + ": the size");
  for (std::size_t i = 0; i < got.size(); ++i)
    if (got[i] != right[i])
      conform(false, what + " of " + shardwise::to_string(shardwise::dtype_of<T>) + ", " + std::to_string(got.size()) +
                         " elements: element " + std::to_string(i));
}

template <class T, class Comm>
void conforms_in_gathers(const Comm& c, std::int64_t n) {
  const int ranks = c.size(), me = c.rank();
  std::vector<T> right;
  for (int r = 0; r < ranks; ++r)
    for (const T x : brought_by<T>(r, n)) right.push_back(x);
  std::vector<T> all(right.size());
  c.all_gather(std::span<const T>(brought_by<T>(me, n)), std::span<T>(all));
  expect_equal(all, right, "all_gather");

  std::vector<std::int64_t> counts;  // rank r brings n + r elements, the last none
  for (int r = 0; r < ranks; ++r) counts.push_back(r + 1 == ranks ? 0 : n + r);
  right.clear();
  for (int r = 0; r < ranks; ++r)
    for (const T x : brought_by<T>(r, counts[static_cast<std::size_t>(r)])) right.push_back(x);
  all.assign(right.size(), T{});
  const std::vector<T> mine = brought_by<T>(me, counts[static_cast<std::size_t>(me)]);
  c.all_gather_v(std::span<const T>(mine), std::span<T>(all), std::span<const std::int64_t>(counts));
  expect_equal(all, right, "all_gather_v");
}

template <class T, class Comm>
void conforms_in_reductions(const Comm& c, std::int64_t n, shardwise::ReduceOp op) {
  const int ranks = c.size(), me = c.rank();
  const auto right = [&](std::int64_t first, std::int64_t count) {
    std::vector<T> v;
    for (std::int64_t i = first; i < first + count; ++i) v.push_back(reduced<T>(ranks, i, op));
    return v;
  };
  std::vector<T> in = brought_by<T>(me, n), out(in.size());
  c.all_reduce(std::span<const T>(in), std::span<T>(out), op);
  expect_equal(out, right(0, n), "all_reduce");
  c.all_reduce(std::span<const T>(in), std::span<T>(in), op);
  expect_equal(in, right(0, n), "all_reduce in place");

  in = brought_by<T>(me, n * ranks);
  out.assign(static_cast<std::size_t>(n), T{});
  c.reduce_scatter(std::span<const T>(in), std::span<T>(out), op);
  expect_equal(out, right(n * me, n), "reduce_scatter");

  std::vector<std::int64_t> counts;
  for (int r = 0; r < ranks; ++r) counts.push_back(r == 0 ? 0 : n + r);
  in = brought_by<T>(me, std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  const std::int64_t before = std::accumulate(counts.begin(), counts.begin() + me, std::int64_t{0});
  out.assign(static_cast<std::size_t>(counts[static_cast<std::size_t>(me)]), T{});
  c.reduce_scatter_v(std::span<const T>(in), std::span<T>(out), std::span<const std::int64_t>(counts), op);
  expect_equal(out, right(before, counts[static_cast<std::size_t>(me)]), "reduce_scatter_v");
}

// Rank r sends s * 2 + n elements to rank s, and nothing to itself where r is odd.
template <class T, class Comm>
void conforms_in_exchanges(const Comm& c, std::int64_t n) {
  const int ranks = c.size(), me = c.rank();
  const auto count = [&](int from, int to) { return from == to && from % 2 == 1 ? 0 : n + 2 * to; };
  const auto element = [](int from, int to, std::int64_t i) { return brought<T>(from + 3 * to, i); };
  std::vector<std::int64_t> sends, receives;
  std::vector<T> in, right;
  for (int r = 0; r < ranks; ++r) {
    sends.push_back(count(me, r));
    receives.push_back(count(r, me));
    for (std::int64_t i = 0; i < count(me, r); ++i) in.push_back(element(me, r, i));
    for (std::int64_t i = 0; i < count(r, me); ++i) right.push_back(element(r, me, i));
  }
  std::vector<T> out(right.size());
  c.all_to_all_v(std::span<const T>(in), std::span<const std::int64_t>(sends), std::span<T>(out),
                 std::span<const std::int64_t>(receives));
  expect_equal(out, right, "all_to_all_v");
}

template <class T, class Comm>
void conforms_in_rooted(const Comm& c, std::int64_t n) {
  const int ranks = c.size(), me = c.rank();
  for (int root = 0; root < ranks; root += n > 1000 && ranks > 2 ? ranks - 1 : 1) {
    std::vector<T> data = brought_by<T>(me, n);
    c.broadcast(std::span<T>(data), root);
    expect_equal(data, brought_by<T>(root, n), "broadcast from " + std::to_string(root));

    const std::vector<T> in = me == root ? brought_by<T>(root, n * ranks) : std::vector<T>{};
    std::vector<T> out(static_cast<std::size_t>(n)), right;
    c.scatter(std::span<const T>(in), std::span<T>(out), root);
    for (std::int64_t i = 0; i < n; ++i) right.push_back(brought<T>(root, n * me + i));
    expect_equal(out, right, "scatter from " + std::to_string(root));

    std::vector<std::int64_t> counts;
    for (int r = 0; r < ranks; ++r) counts.push_back(r == 1 ? 0 : n + r);
    const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    const std::int64_t before = std::accumulate(counts.begin(), counts.begin() + me, std::int64_t{0});
    const std::vector<T> parts = me == root ? brought_by<T>(root, total) : std::vector<T>{};
    out.assign(static_cast<std::size_t>(counts[static_cast<std::size_t>(me)]), T{});
    c.scatter_v(std::span<const T>(parts), std::span<const std::int64_t>(counts), std::span<T>(out), root);
    right.clear();
    for (std::int64_t i = 0; i < counts[static_cast<std::size_t>(me)]; ++i)
      right.push_back(brought<T>(root, before + i));
    expect_equal(out, right, "scatter_v from " + std::to_string(root));
  }
}

// Around a ring: even ranks send first.
template <class T, class Comm>
void conforms_in_messages(const Comm& c, std::int64_t n) {
  const int ranks = c.size(), me = c.rank();
  if (ranks < 2) return;
  const int next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
  const std::vector<T> mine = brought_by<T>(me, n);
  std::vector<T> theirs(static_cast<std::size_t>(n));
  const auto send = [&] { c.send(std::span<const T>(mine), next); };
  const auto receive = [&] { c.recv(std::span<T>(theirs), previous); };
  if (me % 2 == 0) {
    send();
    receive();
  } else {
    receive();
    send();
  }
  expect_equal(theirs, brought_by<T>(previous, n), "send and recv");
}

template <class Comm>
void conforms_in_splits(const Comm& c) {
  const int ranks = c.size(), me = c.rank();
  const std::optional<Comm> part = c.split(me % 2, -me);  // backwards
  conform(part.has_value(), "a part for a color");
  const int members = me % 2 == 0 ? (ranks + 1) / 2 : ranks / 2;
  conform(part->size() == members, "the size of a part");
  conform(part->rank() == members - 1 - me / 2, "the rank in a part, by key");
  std::vector<int> there(static_cast<std::size_t>(members)), right;
  for (int i = members; i-- > 0;) right.push_back(2 * i + me % 2);
  part->all_gather(std::span<const int>(std::vector<int>{me}), std::span<int>(there));
  expect_equal(there, right, "all_gather in a part");
  const std::optional<Comm> some = c.split(me == 0 ? -1 : 5, 0);
  conform(some.has_value() == (me != 0), "no part for a negative color");
  if (some) some->barrier();
  const std::optional<Comm> again = part->split(0, 0);
  conform(again && again->size() == members && again->id() != part->id(), "a part of a part");
  c.barrier();
}

template <class T, class Comm>
void conforms_with(const Comm& c, std::int64_t n) {
  conforms_in_gathers<T>(c, n);
  conforms_in_reductions<T>(c, n, shardwise::ReduceOp::sum);
  conforms_in_exchanges<T>(c, n);
  conforms_in_rooted<T>(c, n);
  conforms_in_messages<T>(c, n);
}

// All of it, for sizes from nothing to beyond what travels as a copy.
template <class Comm>
void conforms(const Comm& c) {
  static_assert(shardwise::Communicator<Comm>);
  for (const std::int64_t n : {0, 1, 5, 100, 8200}) {
    conforms_with<float>(c, n);
    conforms_with<std::int64_t>(c, n);
  }
  conforms_with<shardwise::bfloat16>(c, 700);
  conforms_with<double>(c, 4201);
  conforms_with<std::uint8_t>(c, 33);
  for (const auto op : {shardwise::ReduceOp::max, shardwise::ReduceOp::min, shardwise::ReduceOp::product})
    conforms_in_reductions<double>(c, 4200, op);
  conforms_in_splits(c);
}

}  // namespace test
