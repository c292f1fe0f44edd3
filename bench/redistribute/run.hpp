// What is asked of a run of bench_redistribute and what comes of it, what each rank holds before and after a transition (worked out
// here by lists of indices, not by the library), and the values that are moved.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include <sys/mman.h>

#include "../support.hpp"

namespace bench {

// What a move is compared with. `copy` and `barrier`: a memcpy of max(local input, local output) bytes by the same ranks, and a
// barrier, or the barrier alone. `exchange`: the bytes that the move brings to a rank, sent by the network library with nothing
// else around it. `collective`: the network library's own collective for this move.
enum class Against { copy, barrier, exchange, collective };
inline constexpr const char* against_names[] = {"copy", "barrier", "exchange", "collective"};

// What a bound of the network library has to do.
struct Work {
  std::string transition;
  std::int64_t received_bytes = 0;  // by the rank that receives most
  std::array<std::int64_t, 2> shape{};
  std::int64_t element_bytes = 0;
};
struct Bound {
  std::string name;
  std::string note;  // what else was tried
  std::function<void()> run;
};
using MakeBound = std::function<Bound(Against, const Work&)>;

// What is asked of a run, and what came of it. Ranks that are threads share it and rank 0 writes; of processes, rank 0's counts.
struct Run {
  std::array<std::int64_t, 2> shape{};
  int ranks = 0;
  int repeat = 15;
  double at_most = 1e9;  // seconds for all pairs; five are run in any case
  double settled = 0;  // no more pairs once over half of all lie under it: whatever comes, the median does too
  Against against = Against::copy;
  bool staged = false;  // the input lies in memory of the caller's own
  MakeBound make_bound;  // for exchange and collective

  Pairs wall;  // seconds a repetition
  Pairs processor;  // of all ranks: what other users of a shared machine disturb less
  std::int64_t bound_bytes = 0;  // max(local input, local output) of the largest rank
  std::int64_t received_bytes = 0;  // by the rank that receives most
  std::int64_t wrong = 0;  // elements, on all ranks together
  std::string mesh;
  std::string bound;  // what it was compared with
  std::string note;
};

// One placement, as far as the bench needs it.
struct Place {
  enum Kind { replicate, shard, cyclic, partial } kind;
  int dim = 0;
  std::int64_t block = 0;
};
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

using Memory = std::unique_ptr<std::byte, decltype(&std::free)>;
inline Memory touched_memory(std::size_t bytes) {  // by the rank that uses it
  constexpr std::size_t huge = std::size_t{2} << 20;  // as tensors have them
  Memory m(static_cast<std::byte*>(std::aligned_alloc(huge, (bytes + huge) / huge * huge)), &std::free);
  if (m == nullptr) throw std::bad_alloc();
  madvise(m.get(), bytes / huge * huge, MADV_HUGEPAGE);
  std::memset(m.get(), 1, bytes);
  return m;
}

}  // namespace bench
