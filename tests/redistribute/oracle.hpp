// What a move must give, computed element by element with plain loops: nothing of the library's boxes is used. PlacementVector
// are values, so that a case costs no instantiation.
#pragma once

#include <atomic>
#include <complex>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include <shardwise/comm/trace.hpp>
#include <shardwise/redistribute/remap.hpp>

namespace test {

using shardwise::ReduceOp;
using shardwise::detail::PlacementValue;
using Index = std::vector<std::int64_t>;
using PlacementVector = std::vector<PlacementValue>;

struct Case {
  Index mesh;
  Index global;
  PlacementVector from;
  PlacementVector to;
  std::int64_t salt = 0;
};

inline std::string text(const Index& list) {
  std::string s;
  for (const std::int64_t i : list) s += (s.empty() ? "" : ",") + std::to_string(i);
  return "(" + s + ")";
}
inline std::string text(const PlacementVector& list) {
  std::string s;
  for (const PlacementValue& p : list) s += to_string(p);
  return "[" + s + "]";
}
inline std::string text(const Case& c) {
  return text(c.global) + " on " + text(c.mesh) + " " + text(c.from) + "->" + text(c.to) + " salt " +
         std::to_string(c.salt);
}

// torch.chunk: ceil(n / k) each.
inline std::int64_t chunk_length(std::size_t n, std::int64_t k) {
  const auto m = static_cast<std::int64_t>(n);
  return m / k + (m % k != 0 ? 1 : 0);
}

// Which rank of k on an axis gets position j of n.
inline std::int64_t owner(const PlacementValue& p, std::size_t n, std::int64_t k, std::int64_t j) {
  using shardwise::detail::PlacementKind;
  if (p.kind == PlacementKind::block_cyclic) return j / p.block % k;
  if (p.kind == PlacementKind::shard) return j / chunk_length(n, k);
  const std::int64_t piece = chunk_length(n, p.block);  // cut into pieces, each of them dealt in chunks
  const std::int64_t rest = static_cast<std::int64_t>(n) - j / piece * piece;
  return j % piece / chunk_length(static_cast<std::size_t>(rest < piece ? rest : piece), k);
}

// The global indices that a rank holds in each dimension.
inline std::vector<Index> held(const PlacementVector& placements, const Index& mesh, const Index& coordinate,
                               const Index& global) {
  std::vector<Index> lists(global.size());
  for (std::size_t d = 0; d < global.size(); ++d)
    for (std::int64_t i = 0; i < global[d]; ++i) lists[d].push_back(i);
  for (std::size_t a = 0; a < mesh.size(); ++a) {
    if (!placements[a].is_split()) continue;
    Index& list = lists[static_cast<std::size_t>(placements[a].dim)];
    Index mine;
    for (std::size_t j = 0; j < list.size(); ++j)
      if (owner(placements[a], list.size(), mesh[a], static_cast<std::int64_t>(j)) == coordinate[a])
        mine.push_back(list[j]);
    list = mine;
  }
  return lists;
}

template <class F>
void for_each_index(const std::vector<Index>& lists, F&& f) {
  for (const Index& list : lists)
    if (list.empty()) return;
  std::vector<std::size_t> at(lists.size(), 0);
  Index index(lists.size());
  while (true) {
    for (std::size_t d = 0; d < lists.size(); ++d) index[d] = lists[d][at[d]];
    f(index);
    std::size_t d = lists.size();
    while (d > 0) {
      --d;
      if (++at[d] < lists[d].size()) break;
      at[d] = 0;
      if (d == 0) return;
    }
    if (lists.empty()) return;
  }
}

inline bool has_partial(const PlacementVector& list) {
  for (const PlacementValue& p : list)
    if (p.is_partial()) return true;
  return false;
}
inline ReduceOp reduction(const PlacementVector& list) {  // avg counts as sum
  for (const PlacementValue& p : list)
    if (p.is_partial() && p.op != ReduceOp::avg) return p.op;
  return ReduceOp::sum;
}

// The term that the rank at `coordinate` holds: small integers, exact in every element type, also reduced over 12 ranks.
inline double term(const Case& c, const Index& index, const Index& coordinate) {
  std::int64_t linear = 0;
  for (std::size_t d = 0; d < index.size(); ++d) linear = linear * c.global[d] + index[d];
  if (!has_partial(c.from)) return static_cast<double>((linear * 7 + c.salt) % 251 - 125);
  std::int64_t who = 0;
  for (std::size_t a = 0; a < c.mesh.size(); ++a)
    if (c.from[a].is_partial()) who = who * c.mesh[a] + coordinate[a];
  const std::int64_t hash = linear * 5 + who * 3 + linear / 7 * who + c.salt;
  if (reduction(c.from) == ReduceOp::product) return hash % 3 == 0 ? -1 : static_cast<double>(hash % 3);
  return static_cast<double>(hash % 7 - 3);
}

inline std::vector<double> source(const Case& c, const Index& coordinate) {
  std::vector<double> values;
  for_each_index(held(c.from, c.mesh, coordinate, c.global),
                 [&](const Index& index) { values.push_back(term(c, index, coordinate)); });
  return values;
}

// Whether the rank at `coordinate` is the one on axis `a` that has the element, as `from` shards it.
inline bool holds_on_axis(const Case& c, std::size_t axis, const Index& coordinate, const Index& index) {
  const auto d = static_cast<std::size_t>(c.from[axis].dim);
  std::int64_t at = index[d];
  std::size_t size = static_cast<std::size_t>(c.global[d]);
  for (std::size_t a = 0; a <= axis; ++a) {
    if (!c.from[a].is_split(c.from[axis].dim)) continue;
    const std::int64_t part = owner(c.from[a], size, c.mesh[a], at);
    if (a == axis) return part == coordinate[a];
    std::size_t kept = 0;  // by those who hold it, and of these before it
    std::int64_t before = 0;
    for (std::size_t j = 0; j < size; ++j)
      if (owner(c.from[a], size, c.mesh[a], static_cast<std::int64_t>(j)) == part) {
        ++kept;
        if (static_cast<std::int64_t>(j) < at) ++before;
      }
    at = before;
    size = kept;
  }
  return false;
}

inline std::vector<double> expected(const Case& c, const Index& coordinate) {
  std::vector<double> values;
  const ReduceOp op = reduction(c.from);
  for_each_index(held(c.to, c.mesh, coordinate, c.global), [&](const Index& index) {
    bool here = true;
    double divisor = 1;
    std::int64_t terms = 1;
    for (std::size_t a = 0; a < c.mesh.size(); ++a) {
      if (c.to[a].is_partial() && c.from[a].is_replicate()) here = here && coordinate[a] == 0;
      if (c.to[a].is_partial() && c.from[a].is_split()) here = here && holds_on_axis(c, a, coordinate, index);
      if (c.from[a].is_partial() && !c.to[a].is_partial()) {
        terms *= c.mesh[a];
        if (c.from[a].op == ReduceOp::avg) divisor *= static_cast<double>(c.mesh[a]);
      }
    }
    if (!here) {
      values.push_back(0);
      return;
    }
    double value = 0;
    for (std::int64_t t = 0; t < terms; ++t) {
      Index at = coordinate;
      std::int64_t rest = t;
      for (std::size_t a = 0; a < c.mesh.size(); ++a)
        if (c.from[a].is_partial() && !c.to[a].is_partial()) {
          at[a] = rest % c.mesh[a];
          rest /= c.mesh[a];
        }
      const double x = term(c, index, at);
      if (t == 0)
        value = x;
      else if (op == ReduceOp::product)
        value *= x;
      else if (op == ReduceOp::max)
        value = x > value ? x : value;
      else if (op == ReduceOp::min)
        value = x < value ? x : value;
      else
        value += x;
    }
    values.push_back(value / divisor);
  });
  return values;
}

template <class T>
T element(double v) {
  if constexpr (shardwise::is_complex<T>)
    return T(static_cast<typename T::value_type>(v), static_cast<typename T::value_type>(-2 * v));
  else if constexpr (sizeof(T) == 2)
    return static_cast<T>(static_cast<float>(v));
  else
    return static_cast<T>(v);
}
template <class T>
std::vector<T> elements(const std::vector<double>& values) {
  std::vector<T> out;
  for (const double v : values) out.push_back(element<T>(v));
  return out;
}

// Counts what this thread communicates.
struct Counter : shardwise::detail::CommListener {
  Counter() {
    outer = shardwise::detail::trace_state().listeners;
    on_event = [](shardwise::detail::CommListener& self, const shardwise::CommEvent& event) {
      auto& counter = static_cast<Counter&>(self);
      ++counter.of[static_cast<int>(event.collective)];
      ++counter.total;
      counter.bytes += event.bytes;
    };
    shardwise::detail::trace_state().listeners = this;
  }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  ~Counter() { shardwise::detail::trace_state().listeners = outer; }
  int count(shardwise::Collective c) const { return of[static_cast<int>(c)]; }

  int of[shardwise::collective_count] = {};
  int total = 0;
  std::int64_t bytes = 0;
};

// Ranks report, the test checks: the first few words are kept.
class Failures {
 public:
  void add(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (count_++ == 0) first_ = what;
    if (count_ <= 20) all_ += what + "\n";
  }
  int count() const { return count_; }
  const std::string& first() const { return first_; }
  const std::string& all() const { return all_; }

 private:
  std::mutex mutex_;
  std::atomic<int> count_{0};
  std::string first_;
  std::string all_;
};

template <std::size_t N>
shardwise::detail::PlacementList<N> list_of(const PlacementVector& placements) {
  shardwise::detail::PlacementList<N> list{};
  for (std::size_t a = 0; a < N; ++a) list[a] = placements[a];
  return list;
}
inline shardwise::detail::Extents extents_of(const Index& global) {
  shardwise::detail::Extents e;
  e.rank = static_cast<int>(global.size());
  for (std::size_t d = 0; d < global.size(); ++d) e.size[d] = global[d];
  return e;
}
template <class Mesh>
Index coordinate_of(const Mesh& mesh) {
  const auto c = *mesh.coordinate();
  return Index(c.begin(), c.end());
}

// `Any`: by the executor for any placements.
template <class T, bool Any = false, class Mesh>
std::vector<T> moved(const Mesh& mesh, const PlacementVector& from, const PlacementVector& to, const Index& global,
                     const std::vector<T>& in) {
  std::size_t size = 1;
  for (const Index& list : held(to, Index(mesh.shape().begin(), mesh.shape().end()), coordinate_of(mesh), global))
    size *= list.size();
  std::vector<T> out(size, element<T>(99));
  shardwise::detail::execute_placed<Any>(mesh, list_of<Mesh::ndim>(from), list_of<Mesh::ndim>(to), extents_of(global),
                                         shardwise::dtype_of<T>, in.data(), out.data());
  return out;
}

// Does the move of a case and compares; also there and back, where no reduction and no new term lies between.
template <class T, bool Any = false, class Mesh>
void check(const Mesh& mesh, const Case& c, Failures& failures) {
  const Index me = coordinate_of(mesh);
  const std::vector<T> in = elements<T>(source(c, me));
  const Counter counter;
  const std::vector<T> out = moved<T, Any>(mesh, c.from, c.to, c.global, in);
  const auto where = [&] {
    return text(c) + " as " + shardwise::to_string(shardwise::dtype_of<T>) + " at " + text(me);
  };
  if (out != elements<T>(expected(c, me))) failures.add(where());
  if (counter.total > 1) failures.add("more than one collective: " + where());
  if (in != elements<T>(source(c, me))) failures.add("the input was written: " + where());
  if (!has_partial(c.from) && !has_partial(c.to) && moved<T, Any>(mesh, c.to, c.from, c.global, out) != in)
    failures.add("there and back: " + where());
}

}  // namespace test
