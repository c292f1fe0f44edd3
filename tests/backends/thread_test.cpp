// The thread backend: every collective against brute force, every failure with its message.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <chrono>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <shardwise/backends/thread.hpp>

using namespace shardwise;
using namespace std::chrono_literals;

static_assert(Communicator<ThreadCommunicator>);
static_assert(DirectAccessCommunicator<ThreadCommunicator>);
static_assert(!Communicator<int>);

namespace {

using Counts = std::vector<std::int64_t>;

// Ranks count, the test checks: an assertion per element would take doctest's lock each time.
struct Failures {
  std::atomic<int> count{0};
  void expect(bool holds) { count += holds ? 0 : 1; }
};

// Small integers: exact in every element type, also as sums over 64 ranks of bytes modulo 256.
template <class T>
T value(int rank, std::int64_t i) {
  return static_cast<T>(static_cast<float>((rank * 7 + static_cast<int>(i % 1000) * 3) % 5 + 1));
}
template <class T>
std::vector<T> input(int rank, std::int64_t n) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) v[static_cast<std::size_t>(i)] = value<T>(rank, i);
  return v;
}
template <class T>
double as_double(const T& x) {
  if constexpr (is_complex<T>)
    return static_cast<double>(x.real()) + 1000 * static_cast<double>(x.imag());
  else
    return static_cast<double>(x);
}

double reduced(int ranks, std::int64_t i, ReduceOp op) {
  double r = static_cast<double>(value<float>(0, i));
  for (int k = 1; k < ranks; ++k) {
    const double v = static_cast<double>(value<float>(k, i));
    if (op == ReduceOp::product)
      r *= v;
    else if (op == ReduceOp::max)
      r = std::max(r, v);
    else if (op == ReduceOp::min)
      r = std::min(r, v);
    else
      r += v;
  }
  return r;
}

// What the type makes of an exact result.
template <class T>
bool matches(const T& got, int ranks, std::int64_t i, ReduceOp op) {
  double want = reduced(ranks, i, op);
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    if (op == ReduceOp::product) {
      std::uint8_t p = 1;
      for (int k = 0; k < ranks; ++k) p = static_cast<std::uint8_t>(p * value<T>(k, i));
      return got == p;
    }
    if (op == ReduceOp::avg) return got == static_cast<T>(static_cast<std::int64_t>(want) / ranks);
    return got == static_cast<T>(static_cast<std::int64_t>(want));
  }
  if (op == ReduceOp::avg) want /= ranks;
  if constexpr (std::is_integral_v<T>) {
    if (op == ReduceOp::product) {
      std::uint64_t p = 1;
      for (int k = 0; k < ranks; ++k) p *= static_cast<std::uint64_t>(value<T>(k, i));
      return static_cast<std::uint64_t>(got) == static_cast<std::uint64_t>(static_cast<T>(p));
    }
    return static_cast<double>(got) == static_cast<double>(static_cast<std::int64_t>(want));
  }
  const double tolerance = std::is_same_v<T, bfloat16> ? 0.01 : std::is_same_v<T, half> ? 0.002 : 1e-5;
  if constexpr (std::is_same_v<T, half>)
    if (want > 60000) return as_double(got) > 60000;
  if (op == ReduceOp::product && want > 1e37) return true;
  return std::abs(as_double(got) - want) <= tolerance * std::abs(want);
}

// Chunks of uneven length, some empty.
Counts uneven(int ranks, std::int64_t scale) {
  Counts c;
  for (int r = 0; r < ranks; ++r) c.push_back((r * 5 + 3) % 4 * scale);
  return c;
}
std::int64_t total(const Counts& c) {
  std::int64_t n = 0;
  for (const std::int64_t x : c) n += x;
  return n;
}
std::int64_t before(const Counts& c, int rank) {
  std::int64_t n = 0;
  for (int r = 0; r < rank; ++r) n += c[static_cast<std::size_t>(r)];
  return n;
}

template <class T>
void gathers(const ThreadCommunicator& c, std::int64_t n, Failures& bad) {
  const std::vector<T> in = input<T>(c.rank(), n);
  std::vector<T> out(in.size() * static_cast<std::size_t>(c.size()));
  c.all_gather<T>(in, out);
  for (int r = 0; r < c.size(); ++r) {
    const std::vector<T> want = input<T>(r, n);
    bad.expect(n == 0 || std::memcmp(out.data() + r * n, want.data(), sizeof(T) * want.size()) == 0);
  }
  const Counts counts = uneven(c.size(), n);
  const std::vector<T> part = input<T>(c.rank(), counts[static_cast<std::size_t>(c.rank())]);
  std::vector<T> all(static_cast<std::size_t>(total(counts)));
  c.all_gather_v<T>(part, all, counts);
  for (int r = 0; r < c.size(); ++r) {
    const std::vector<T> want = input<T>(r, counts[static_cast<std::size_t>(r)]);
    bad.expect(want.empty() || std::memcmp(all.data() + before(counts, r), want.data(), sizeof(T) * want.size()) == 0);
  }
}

template <class T>
void reduces(const ThreadCommunicator& c, std::int64_t n, ReduceOp op, Failures& bad) {
  {
    std::vector<T> in = input<T>(c.rank(), n), out(in.size());
    c.all_reduce<T>(in, out, op);
    for (std::int64_t i = 0; i < n; ++i) bad.expect(matches(out[static_cast<std::size_t>(i)], c.size(), i, op));
    c.all_reduce<T>(in, in, op);  // in place
    bad.expect(n == 0 || std::memcmp(in.data(), out.data(), sizeof(T) * in.size()) == 0);
  }
  {
    const std::vector<T> in = input<T>(c.rank(), n * c.size());
    std::vector<T> out(static_cast<std::size_t>(n));
    c.reduce_scatter<T>(in, out, op);
    for (std::int64_t i = 0; i < n; ++i)
      bad.expect(matches(out[static_cast<std::size_t>(i)], c.size(), c.rank() * n + i, op));
  }
  {
    const Counts counts = uneven(c.size(), n);
    const std::int64_t mine = counts[static_cast<std::size_t>(c.rank())], at = before(counts, c.rank());
    const std::vector<T> in = input<T>(c.rank(), total(counts));
    std::vector<T> out(static_cast<std::size_t>(mine));
    c.reduce_scatter_v<T>(in, out, counts, op);
    for (std::int64_t i = 0; i < mine; ++i) bad.expect(matches(out[static_cast<std::size_t>(i)], c.size(), at + i, op));
  }
}

template <class T>
void exchanges(const ThreadCommunicator& c, std::int64_t n, Failures& bad) {
  // Rank r sends (r + 2 s) % 3 * n elements to rank s.
  const auto amount = [n](int from, int to) { return (from + 2 * to) % 3 * n; };
  Counts sends, receives;
  std::vector<T> in;
  for (int s = 0; s < c.size(); ++s) {
    sends.push_back(amount(c.rank(), s));
    receives.push_back(amount(s, c.rank()));
    for (std::int64_t i = 0; i < sends.back(); ++i) in.push_back(value<T>(c.rank() * 3 + s, i));
  }
  std::vector<T> out(static_cast<std::size_t>(total(receives)));
  c.all_to_all_v<T>(in, sends, out, receives);
  std::size_t at = 0;
  for (int r = 0; r < c.size(); ++r)
    for (std::int64_t i = 0; i < receives[static_cast<std::size_t>(r)]; ++i)
      bad.expect(as_double(out[at++]) == as_double(value<T>(r * 3 + c.rank(), i)));
}

template <class T>
void roots(const ThreadCommunicator& c, std::int64_t n, Failures& bad) {
  const int root = (c.size() - 1) / 2;
  std::vector<T> data = input<T>(c.rank(), n);
  c.broadcast<T>(data, root);
  const std::vector<T> want = input<T>(root, n);
  bad.expect(n == 0 || std::memcmp(data.data(), want.data(), sizeof(T) * want.size()) == 0);

  const std::vector<T> whole = c.rank() == root ? input<T>(root, n * c.size()) : std::vector<T>();
  std::vector<T> part(static_cast<std::size_t>(n));
  c.scatter<T>(whole, part, root);
  for (std::int64_t i = 0; i < n; ++i)
    bad.expect(as_double(part[static_cast<std::size_t>(i)]) == as_double(value<T>(root, c.rank() * n + i)));

  const Counts counts = uneven(c.size(), n);
  const std::int64_t mine = counts[static_cast<std::size_t>(c.rank())], at = before(counts, c.rank());
  const std::vector<T> all = c.rank() == root ? input<T>(root, total(counts)) : std::vector<T>();
  std::vector<T> piece(static_cast<std::size_t>(mine));
  c.scatter_v<T>(all, counts, piece, root);
  for (std::int64_t i = 0; i < mine; ++i)
    bad.expect(as_double(piece[static_cast<std::size_t>(i)]) == as_double(value<T>(root, at + i)));
}

template <class T>
void passes_on(const ThreadCommunicator& c, std::int64_t n, Failures& bad) {
  if (c.size() == 1) return;
  // A ring, opened at rank 0.
  const int next = (c.rank() + 1) % c.size(), previous = (c.rank() + c.size() - 1) % c.size();
  const std::vector<T> in = input<T>(c.rank(), n);
  std::vector<T> out(in.size());
  if (c.rank() == 0) c.send<T>(in, next);
  c.recv<T>(out, previous);
  if (c.rank() != 0) c.send<T>(in, next);
  const std::vector<T> want = input<T>(previous, n);
  bad.expect(n == 0 || std::memcmp(out.data(), want.data(), sizeof(T) * want.size()) == 0);
}

template <class T>
void everything(int ranks, std::int64_t n) {
  Failures bad;
  run_ranks(ranks, [&](ThreadCommunicator c) {
    gathers<T>(c, n, bad);
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::product, ReduceOp::max, ReduceOp::min})
      if (reducible<T>(op)) reduces<T>(c, n, op, bad);
    exchanges<T>(c, n, bad);
    roots<T>(c, n, bad);
    passes_on<T>(c, n, bad);
  });
  CAPTURE(ranks);
  CAPTURE(n);
  CHECK(bad.count == 0);
}

// What `f(c)` throws on each rank; "" where nothing. Every rank catches, then returns.
template <class F>
std::vector<std::string> messages(int ranks, F f) {
  std::vector<std::string> text(static_cast<std::size_t>(ranks));
  run_ranks(ranks, [&](ThreadCommunicator c) {
    std::string& mine = text[static_cast<std::size_t>(c.rank())];
    try {
      f(c);
    } catch (const PeerFailedError& e) {
      mine = std::string("PeerFailedError ") + e.what();
    } catch (const TimeoutError& e) {
      mine = std::string("TimeoutError ") + e.what();
    } catch (const MismatchError& e) {
      mine = std::string("MismatchError ") + e.what();
    } catch (const ShapeError& e) {
      mine = std::string("ShapeError ") + e.what();
    } catch (const Error& e) {
      mine = std::string("Error ") + e.what();
    }
  });
  return text;
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void all_reduce(const ThreadCommunicator& c, std::size_t n = 4) {
  std::vector<float> x(n);
  c.all_reduce<float>(x, x, ReduceOp::sum);
}

}  // namespace

TEST_CASE("every collective equals brute force on any number of ranks") {
  for (const int ranks : {1, 2, 3, 4, 7, 16, 64})
    for (const std::int64_t n : {0, 1, 5, 129}) everything<float>(ranks, n);
}

TEST_CASE("large buffers go through the direct exchange") {
  for (const int ranks : {1, 2, 3, 4, 7}) everything<float>(ranks, 9001);
  everything<double>(4, 20000);
  everything<float>(3, 200000);
}

TEST_CASE("every element type") {
  for (const std::int64_t n : {5, 700}) {
    everything<double>(3, n);
    everything<std::complex<float>>(3, n);
    everything<std::complex<double>>(4, n);
    everything<bfloat16>(4, n);
    everything<half>(7, n);
    everything<std::int32_t>(3, n);
    everything<std::int64_t>(4, n);
    everything<std::uint8_t>(7, n);
  }
  everything<bfloat16>(4, 40000);
}

TEST_CASE("reductions add in rank order: equal bits everywhere, small or large") {
  for (const std::size_t n : {std::size_t{100}, std::size_t{50000}})
    for (const int ranks : {2, 3, 5, 8, 13}) {
      std::vector<std::vector<float>> in(static_cast<std::size_t>(ranks)), out(in.size());
      std::mt19937 random(7);
      for (auto& v : in) {
        v.resize(n);
        for (float& x : v) x = std::uniform_real_distribution<float>(-1, 1)(random);
      }
      run_ranks(ranks, [&](ThreadCommunicator c) {
        auto& mine = out[static_cast<std::size_t>(c.rank())];
        mine.resize(n);
        c.all_reduce<float>(in[static_cast<std::size_t>(c.rank())], mine, ReduceOp::sum);
      });
      std::vector<float> want = in[0];
      for (std::size_t r = 1; r < in.size(); ++r)
        for (std::size_t i = 0; i < n; ++i) want[i] += in[r][i];
      for (const auto& v : out) CHECK(std::memcmp(v.data(), want.data(), n * sizeof(float)) == 0);
    }
}

TEST_CASE("results past the caches, at any alignment") {
  const std::size_t n = (std::size_t{1} << 20) + 77;
  Failures bad;
  run_ranks(3, [&](ThreadCommunicator c) {
    std::vector<float> in(3 * n), out(n + 4);
    for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 1000) + static_cast<float>(c.rank());
    const std::size_t skip = static_cast<std::size_t>(c.rank()) + 1;
    const std::span<float> part(out.data() + skip, n);
    c.all_reduce<float>(std::span<const float>(in).first(n), part, ReduceOp::sum);
    for (std::size_t i = 0; i < n; ++i) bad.expect(part[i] == 3 * static_cast<float>(i % 1000) + 3);
    bad.expect(out[skip - 1] == 0 && (skip + n == out.size() || out[skip + n] == 0));
    c.reduce_scatter<float>(in, part, ReduceOp::avg);
    const std::size_t at = static_cast<std::size_t>(c.rank()) * n;
    for (std::size_t i = 0; i < n; ++i) bad.expect(part[i] == static_cast<float>((at + i) % 1000) + 1);
    bad.expect(out[skip - 1] == 0 && (skip + n == out.size() || out[skip + n] == 0));
  });
  CHECK(bad.count == 0);
}

TEST_CASE("16-bit sums are kept in float") {
  // 256 + 1 is not a bfloat16: rounding after every term would lose all the ones.
  std::vector<bfloat16> out(1);
  const std::vector<bfloat16> big{bfloat16(256.0f)}, one{bfloat16(1.0f)};
  std::vector<const bfloat16*> terms{big.data()};
  for (int i = 0; i < 64; ++i) terms.push_back(one.data());
  reduce_terms(out.data(), terms.data(), static_cast<int>(terms.size()), 1, ReduceOp::sum);
  CHECK(static_cast<float>(out[0]) == 320.0f);
}

TEST_CASE("reduce_terms may write over one of its terms") {
  for (int count = 1; count < 20; ++count) {
    std::vector<std::vector<double>> terms;
    std::vector<const double*> pointers;
    for (int k = 0; k < count; ++k) terms.push_back(input<double>(k, 300));
    for (const auto& t : terms) pointers.push_back(t.data());
    double* out = terms[static_cast<std::size_t>(count / 2)].data();
    reduce_terms(out, pointers.data(), count, 300, ReduceOp::sum);
    bool same = true;
    for (std::int64_t i = 0; i < 300; ++i) same = same && out[i] == reduced(count, i, ReduceOp::sum);
    CHECK(same);
  }
  const std::complex<float> z;
  const std::complex<float>* term = &z;
  std::complex<float> out;
  CHECK_THROWS_AS(reduce_terms(&out, &term, 1, 1, ReduceOp::max), Error);
  const std::vector<const std::complex<float>*> many(1025, &z);
  CHECK_THROWS_WITH_AS(reduce_terms(&out, many.data(), 1025, 1, ReduceOp::sum),
                       "shardwise::reduce_terms: 1025 terms; 1 to 1024 meet in one call", Error);
  CHECK_NOTHROW(reduce_terms(&out, many.data(), 1024, 1, ReduceOp::sum));
}

TEST_CASE("random sequences of mixed collectives") {
  for (const int ranks : {2, 3, 5}) {
    Failures bad;
    run_ranks(ranks, [&](ThreadCommunicator c) {
      std::mt19937 random(42);  // the same on all ranks
      const auto part = *c.split(c.rank() % 2, c.rank());
      for (int step = 0; step < 300; ++step) {
        const std::int64_t n = random() % 3 == 0 ? 9000 + static_cast<std::int64_t>(random() % 100)
                                                 : static_cast<std::int64_t>(random() % 50);
        const unsigned which = static_cast<unsigned>(random() % 7);
        const ThreadCommunicator& on = random() % 4 == 0 ? part : c;
        if (which == 0) gathers<float>(on, n / 10, bad);
        if (which == 1) reduces<float>(on, n, ReduceOp::sum, bad);
        if (which == 2) exchanges<std::int32_t>(on, n / 10, bad);
        if (which == 3) roots<double>(on, n, bad);
        if (which == 4) passes_on<float>(on, n, bad);
        if (which == 5) on.barrier();
        if (which == 6) gathers<std::uint8_t>(on, n, bad);
      }
    });
    CHECK(bad.count == 0);
  }
}

TEST_CASE("thousands of staged exchanges back to back, with direct ones between") {
  for (const int ranks : {2, 4, 9}) {
    Failures bad;
    run_ranks(ranks, [&](ThreadCommunicator c) {
      CallInfo call;
      call.collective = Collective::all_gather;
      for (int step = 0; step < 4000; ++step) {
        int mine = step * 100 + c.rank();
        const auto check = [&](const Peers& peers) {
          for (int r = 0; r < peers.size; ++r) {
            int got = 0;
            std::memcpy(&got, peers.in[r], sizeof(got));
            bad.expect(got == step * 100 + r);
          }
        };
        if (step % 7 == 3)
          c.exchange(call, &mine, sizeof(mine), &mine, check);
        else
          c.exchange_staged(call, &mine, sizeof(mine), check);
        mine = -1;  // free again in both
      }
    });
    CHECK(bad.count == 0);
  }
}

TEST_CASE("an exchange lets a rank write into its peers") {
  Failures bad;
  run_ranks(4, [&](ThreadCommunicator c) {
    for (int step = 0; step < 200; ++step) {
      std::vector<int> out(4, -1);
      CallInfo call;
      call.collective = Collective::all_to_all;
      c.exchange(call, nullptr, 0, out.data(), [&](const Peers& peers) {
        for (int r = 0; r < peers.size; ++r) reinterpret_cast<int*>(peers.out[r])[c.rank()] = step + c.rank() * 10 + r;
      });
      for (int r = 0; r < 4; ++r) bad.expect(out[static_cast<std::size_t>(r)] == step + r * 10 + c.rank());
    }
  });
  CHECK(bad.count == 0);
}

TEST_CASE("split orders by key, then by rank, and leaves out negative colors") {
  Failures bad;
  run_ranks(7, [&](ThreadCommunicator c) {
    const auto world = c.with_axis("world").with_deadline(70s);
    const auto half = world.split(c.rank() == 6 ? -1 : c.rank() % 2, -c.rank());
    bad.expect(half.has_value() == (c.rank() != 6));
    if (half) {
      bad.expect(half->size() == 3);
      bad.expect(half->rank() == 2 - c.rank() / 2);
      bad.expect(half->axis() == Name("world"));
      bad.expect(half->deadline() == 70s);
      bad.expect(half->id() != c.id());
      std::vector<std::uint64_t> ids(3);
      const std::uint64_t id = half->id();
      half->exchange_staged(CallInfo{}, &id, sizeof(id), [&](const Peers& p) {
        for (int r = 0; r < p.size; ++r) bad.expect(std::memcmp(p.in[r], &id, sizeof(id)) == 0);
      });
      const auto again = half->split(0, 0);
      bad.expect(again->rank() == half->rank() && again->id() != half->id());
      all_reduce(*again);
    }
    const auto ties = c.split(0, 5);
    bad.expect(ties->rank() == c.rank());
    c.barrier();
  });
  CHECK(bad.count == 0);
}

TEST_CASE("many splits while others work") {
  run_ranks(8, [&](ThreadCommunicator c) {
    for (int i = 0; i < 30; ++i) {
      const auto row = *c.split(c.rank() / 4, c.rank());
      const auto column = *c.split(c.rank() % 4, c.rank());
      for (int k = 0; k < 5; ++k) {
        all_reduce(row);
        all_reduce(column, 10000);
      }
    }
  });
}

TEST_CASE("a throw on one rank reaches the others with its message, and run_ranks as it was") {
  for (const int ranks : {2, 3, 16, 64}) {
    std::vector<std::string> seen(static_cast<std::size_t>(ranks)), again(seen.size());
    try {
      run_ranks(ranks, [&](ThreadCommunicator world) {
        const auto c = world.with_axis("tp");
        const auto r = static_cast<std::size_t>(c.rank());
        all_reduce(c);
        if (c.rank() == 1) throw std::out_of_range("out of cheese");
        try {
          all_reduce(c);
        } catch (const PeerFailedError& e) {
          seen[r] = e.what();
        }
        try {
          all_reduce(c);
        } catch (const PeerFailedError& e) {
          again[r] = e.what();
          throw;
        }
      });
      FAIL("nothing was thrown");
    } catch (const std::out_of_range& e) {
      CHECK(std::string(e.what()) == "out of cheese");
    }
    for (std::size_t r = 0; r < seen.size(); ++r) {
      if (r == 1) continue;
      CHECK(seen[r] == "shardwise::all_reduce(sum) of float [4] on axis 'tp': rank 1 failed: out of cheese");
      CHECK(again[r] == seen[r]);
    }
  }
}

TEST_CASE("what is thrown need not be an exception class") {
  std::string seen;
  try {
    run_ranks(2, [&](ThreadCommunicator c) {
      if (c.rank() == 0) throw 42;
      try {
        c.barrier();
      } catch (const PeerFailedError& e) {
        seen = e.what();
        throw std::logic_error("a consequence of another type");
      }
    });
  } catch (const int number) {
    CHECK(number == 42);
  }
  CHECK(has(seen, "rank 0 failed"));
}

TEST_CASE("a throw reaches ranks that wait in other groups, and in send and recv") {
  std::vector<std::string> seen(6);
  CHECK_THROWS_WITH(run_ranks(6,
                              [&](ThreadCommunicator c) {
                                const auto half = c.split(c.rank() / 3, 0)->with_axis("half");
                                if (c.rank() == 5) {
                                  std::this_thread::sleep_for(20ms);
                                  throw std::runtime_error("out of cheese");
                                }
                                try {
                                  std::vector<float> x(2);
                                  if (c.rank() == 0) half.send<float>(x, 2);
                                  if (c.rank() == 1) half.recv<float>(x, 2);
                                  if (c.rank() == 2) c.recv<float>(x, 5);
                                  half.barrier();
                                } catch (const PeerFailedError& e) {
                                  seen[static_cast<std::size_t>(c.rank())] = e.what();
                                  throw;
                                }
                              }),
                    "out of cheese");
  for (std::size_t r = 0; r < 5; ++r) CHECK(has(seen[r], "rank 5 failed: out of cheese"));
  CHECK(has(seen[0], "send of float [2] on axis 'half'"));
  CHECK(has(seen[1], "recv of float [2] from rank 2 on axis 'half'"));
  CHECK(has(seen[3], "barrier on axis 'half'"));
}

TEST_CASE("a throw while the others are in large exchanges leaves no rank in freed memory") {
  for (int round = 0; round < 30; ++round)
    CHECK_THROWS_WITH(run_ranks(4,
                                [&](ThreadCommunicator c) {
                                  const auto three = c.split(c.rank() == 3 ? -1 : 0, 0);
                                  if (!three) {
                                    std::this_thread::sleep_for(std::chrono::microseconds(round * 100));
                                    throw std::runtime_error("out of cheese");
                                  }
                                  for (;;) {
                                    std::vector<float> in(30000, 1.0f), out(30000);
                                    three->all_reduce<float>(in, out, ReduceOp::sum);
                                    std::vector<float> all(90000);
                                    three->all_gather<float>(out, all);
                                    if (all[89999] != 3.0f) throw std::logic_error("wrong sum");
                                  }
                                }),
                      "out of cheese");
}

TEST_CASE("a throw in the middle of a copy of 256 MiB frees nothing that another rank still copies") {
  constexpr std::size_t bytes = std::size_t{256} << 20;
  CHECK_THROWS_WITH(run_ranks(2,
                              [&](ThreadCommunicator c) {
                                CallInfo call;
                                call.collective = Collective::all_gather;
                                const std::vector<char> in(bytes, static_cast<char>(c.rank() + 1));
                                std::vector<char> out(c.rank() == 0 ? bytes : 0);
                                c.exchange(call, in.data(), bytes, out.data(), [&](const Peers& peers) {
                                  if (c.rank() == 1) throw std::runtime_error("out of cheese");
                                  std::memcpy(out.data(), peers.in[1], bytes);
                                });
                                for (std::size_t i = 0; i < out.size(); i += 4093) REQUIRE(out[i] == 2);
                                c.barrier();
                              }),
                    "out of cheese");
}

TEST_CASE("a rank that returns early is named") {
  for (const int ranks : {2, 3, 16, 64}) {
    const auto text = messages(ranks, [&](ThreadCommunicator c) {
      if (c.rank() == 1) return;
      all_reduce(c.with_axis("tp"));
    });
    for (int r = 0; r < ranks; ++r) {
      if (r == 1) continue;
      CHECK(has(text[static_cast<std::size_t>(r)], "PeerFailedError"));
      CHECK(has(text[static_cast<std::size_t>(r)], "rank 1 left early"));
      CHECK(has(text[static_cast<std::size_t>(r)], "all_reduce(sum) of float [4] on axis 'tp'"));
    }
  }
  const auto text = messages(3, [&](ThreadCommunicator c) {
    std::vector<float> x(2);
    if (c.rank() == 0) c.send<float>(x, 1);
    if (c.rank() == 2) c.recv<float>(x, 1);
  });
  CHECK(has(text[0], "rank 1 left early"));
  CHECK(has(text[2], "rank 1 left early"));
  CHECK(text[1].empty());
}

TEST_CASE("a rank that left is no failure for those that do not wait for it") {
  run_ranks(4, [&](ThreadCommunicator c) {
    const auto two = *c.split(c.rank() / 2, 0);
    if (c.rank() >= 2) return;
    std::this_thread::sleep_for(10ms);
    for (int i = 0; i < 100; ++i) all_reduce(two);
  });
}

TEST_CASE("an early return that nobody caught comes out of run_ranks") {
  CHECK_THROWS_AS(run_ranks(3,
                            [&](ThreadCommunicator c) {
                              if (c.rank() != 1) c.barrier();
                            }),
                  PeerFailedError);
}

TEST_CASE("a rank that never comes is a timeout that names it") {
  std::vector<std::string> text;
  // Again with more time where a busy machine made another rank miss the deadline too.
  std::chrono::milliseconds deadline = 50ms;
  for (;; deadline *= 4) {
    std::atomic<int> done{0};
    text = messages(4, [&](ThreadCommunicator world) {
      const auto c = world.with_axis("dp").with_deadline(deadline);
      if (c.rank() == 2) {
        while (done.load() < 3) std::this_thread::sleep_for(1ms);
        all_reduce(c);  // too late: the same error
        return;
      }
      struct Count {
        std::atomic<int>& n;
        ~Count() { ++n; }
      } count{done};
      all_reduce(c);
    });
    if (!has(text[0], "missing: ranks ") || deadline > 10s) break;
  }
  for (const std::string& t : text) {
    CHECK(has(t, "TimeoutError"));
    CHECK(has(t, "all_reduce(sum) of float [4] on axis 'dp'"));
    CHECK(has(t, std::to_string(deadline.count()) + " ms"));
    CHECK(has(t, "missing: rank 2"));
    CHECK(t == text[0]);
  }
}

TEST_CASE("a timeout in a part of the world names world ranks too") {
  std::atomic<int> done{0};
  const auto text = messages(4, [&](ThreadCommunicator c) {
    const auto upper = c.split(c.rank() / 2, 0)->with_deadline(50ms);
    if (c.rank() == 2) {
      try {
        upper.barrier();
      } catch (...) {
        ++done;
        throw;
      }
    }
    while (done.load() < 1) std::this_thread::sleep_for(1ms);
    upper.barrier();
  });
  CHECK(has(text[2], "rank 1 (world rank 3)"));
  for (const std::string& t : text) CHECK(t == text[2]);
}

// The default is read once a process: each value gets a process of its own, this program again.
TEST_CASE("SHARDWISE_TIMEOUT_MS is the default deadline, and a value that is none is refused") {
  const char* child = std::getenv("SHARDWISE_TEST_CHILD");
  if (child != nullptr && std::string(child) == "short") {
    CHECK(detail::default_deadline() == 70ms);
    std::atomic<int> done{0};
    const auto text = messages(2, [&](ThreadCommunicator c) {
      CHECK(c.deadline() == 70ms);
      if (c.rank() == 0) {
        struct Done {
          std::atomic<int>& n;
          ~Done() { ++n; }
        } end{done};
        all_reduce(c);
      }
      while (done.load() == 0) std::this_thread::sleep_for(1ms);
    });
    CHECK(has(text[0], "TimeoutError"));
    CHECK(has(text[0], "70 ms"));
    return;
  }
  if (child != nullptr && std::string(child) == "none") {
    CHECK(detail::default_deadline() == 5min);
    return;
  }
  if (child != nullptr) {
    std::string seen;
    try {
      run_ranks(1, [](ThreadCommunicator c) { c.barrier(); });
    } catch (const Error& e) {
      seen = e.what();
    }
    CHECK(seen == "shardwise: SHARDWISE_TIMEOUT_MS must be a positive number of milliseconds, at most a year, not '" +
                      std::string(std::getenv("SHARDWISE_TIMEOUT_MS")) + "'");
    return;
  }
  std::error_code error;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) {
    std::puts("SKIPPED: SHARDWISE_TIMEOUT_MS: there is no /proc/self/exe");
    return;
  }
  const auto passes = [&](const char* kind, const std::string& value) {
    const std::string command = "SHARDWISE_TEST_CHILD=" + std::string(kind) + " SHARDWISE_TIMEOUT_MS='" + value +
                                "' '" + program + "' -tc='SHARDWISE_TIMEOUT_MS*' > /dev/null 2>&1";
    return std::system(command.c_str()) == 0;
  };
  CHECK(passes("short", "70"));
  CHECK(passes("none", ""));
  for (const char* wrong : {"0", "-5", "soon", "12s", "1.5", "99999999999999999999"}) {
    INFO(wrong);
    CHECK(passes("wrong", wrong));
  }
  CHECK(!passes("short", "80"));  // the child does look
}

TEST_CASE("send and recv time out") {
  std::atomic<int> done{0};
  const auto text = messages(3, [&](ThreadCommunicator world) {
    const auto c = world.with_deadline(50ms);
    std::vector<float> x(2);
    struct Count {
      std::atomic<int>& n;
      ~Count() { ++n; }
    } count{done};
    if (c.rank() == 0) c.send<float>(x, 1);
    if (c.rank() == 2) c.recv<float>(x, 1);
    while (c.rank() == 1 && done.load() < 2) std::this_thread::sleep_for(1ms);
  });
  CHECK(has(text[0], "TimeoutError"));
  CHECK(has(text[0], "missing: rank 1"));
  CHECK(text[2] == text[0]);
}

TEST_CASE("differing operations, types and counts name both sides, on every rank, before data moves") {
  std::atomic<int> touched{0};
  const auto differ = [&](auto f) {
    return messages(4, [&](ThreadCommunicator world) {
      const auto c = world.with_axis("tp");
      all_reduce(c);
      std::vector<float> x(16, 1.0f), y(16, 2.0f);
      try {
        f(c, std::span<float>(x), std::span<float>(y));
      } catch (...) {
        for (const float v : y) touched += v == 2.0f ? 0 : 1;
        throw;
      }
    });
  };
  const auto check = [](const std::vector<std::string>& text, const std::string& one, const std::string& other) {
    for (const std::string& t : text) {
      CHECK(has(t, "MismatchError"));
      CHECK(has(t, one));
      CHECK(has(t, other));
      CHECK(has(t, "axis 'tp'"));
    }
  };
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          if (c.rank() == 2)
            c.all_gather<float>(x.first(4), y);
          else
            c.all_reduce<float>(x, y, ReduceOp::sum);
        }),
        "rank 0 calls all_reduce(sum) of float [16]", "rank 2 calls all_gather of float [4]");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          c.all_reduce<float>(x, y, c.rank() == 3 ? ReduceOp::max : ReduceOp::sum);
        }),
        "all_reduce(sum)", "rank 3 calls all_reduce(max)");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          const std::size_t n = c.rank() == 0 ? 8 : 16;
          c.all_reduce<float>(x.first(n), y.first(n), ReduceOp::sum);
        }),
        "rank 0 calls all_reduce(sum) of float [8]", "rank 1 calls all_reduce(sum) of float [16]");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          std::vector<double> d(16);
          if (c.rank() == 1)
            c.all_reduce<double>(d, d, ReduceOp::sum);
          else
            c.all_reduce<float>(x, y, ReduceOp::sum);
        }),
        "rank 0 calls all_reduce(sum) of float [16]", "rank 1 calls all_reduce(sum) of double [16]");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float>) {
          c.broadcast<float>(x, c.rank() == 1 ? 1 : 0);
        }),
        "from rank 0", "from rank 1");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          std::vector<float> large(100000);  // one rank stages, the other does not
          if (c.rank() == 1)
            c.all_reduce<float>(large, large, ReduceOp::sum);
          else
            c.all_reduce<float>(x, y, ReduceOp::sum);
        }),
        "float [16]", "float [100000]");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          const Counts a{4, 4, 4, 4}, b{4, 4, 5, 3};
          c.all_gather_v<float>(x.first(4), y, c.rank() == 1 ? b : a);
        }),
        "rank 1", "with other counts");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          const Counts a{4, 4, 4, 4}, b{3, 5, 4, 4};
          c.all_to_all_v<float>(x, c.rank() == 2 ? b : a, y, a);
        }),
        "rank 2 sends 3 elements to rank 0", "expects 4");
  check(differ([](const ThreadCommunicator& c, std::span<float> x, std::span<float> y) {
          if (c.rank() == 0)
            c.barrier();
          else
            c.all_reduce<float>(x, y, ReduceOp::sum);
        }),
        "rank 0 calls barrier", "rank 1 calls all_reduce");
  CHECK(touched == 0);
}

TEST_CASE("messages of differing types or counts are refused on both sides") {
  const auto text = messages(2, [&](ThreadCommunicator world) {
    const auto c = world.with_axis("pp");
    std::vector<float> x(3);
    std::vector<double> y(3);
    if (c.rank() == 0)
      c.send<float>(x, 1);
    else
      c.recv<double>(y, 0);
  });
  for (const std::string& t : text) {
    CHECK(has(t, "MismatchError"));
    CHECK(has(t, "rank 0 calls send of float [3]"));
    CHECK(has(t, "rank 1 calls recv of double [3]"));
    CHECK(has(t, "axis 'pp'"));
  }
}

TEST_CASE("after a failure every call says the same") {
  const auto text = messages(3, [&](ThreadCommunicator c) {
    try {
      all_reduce(c, c.rank() == 1 ? 3 : 4);
    } catch (const MismatchError& first) {
      const std::string before = first.what();
      try {
        c.barrier();
      } catch (const MismatchError& second) {
        if (before != second.what()) throw Error("another message");
      }
      std::vector<float> x(2);
      c.send<float>(x, (c.rank() + 1) % 3);
    }
  });
  for (const std::string& t : text) CHECK(has(t, "MismatchError"));
}

TEST_CASE("abort tells everyone") {
  const auto text = messages(3, [&](ThreadCommunicator c) {
    if (c.rank() == 2) c.abort("the disk is full");
    c.barrier();
  });
  for (const std::string& t : text) CHECK(t == "PeerFailedError shardwise::barrier: rank 2 aborted: the disk is full");
  // What the aborting rank throws next is the original.
  CHECK_THROWS_WITH(run_ranks(3,
                              [&](ThreadCommunicator c) {
                                if (c.rank() == 2) {
                                  c.abort("the disk is full");
                                  std::this_thread::sleep_for(5ms);
                                  throw std::runtime_error("no space left");
                                }
                                c.barrier();
                              }),
                    "no space left");
}

TEST_CASE("sizes that do not fit are the caller's error, and harm nobody") {
  run_ranks(2, [&](ThreadCommunicator c) {
    const auto shape_error = [](auto f) {
      try {
        f();
      } catch (const ShapeError&) {
        return;
      }
      throw std::logic_error("no ShapeError");
    };
    std::vector<float> three(3), four(4);
    const Counts counts{1, 2}, negative{-1, 4}, one{3};
    shape_error([&] { c.all_gather<float>(three, four); });
    shape_error([&] { c.all_gather_v<float>(three, four, counts); });
    shape_error([&] { c.all_gather_v<float>(three, four, one); });
    shape_error([&] { c.all_gather_v<float>(three, four, negative); });
    shape_error([&] { c.reduce_scatter<float>(three, four, ReduceOp::sum); });
    shape_error([&] { c.reduce_scatter_v<float>(four, three, counts, ReduceOp::sum); });
    shape_error([&] { c.all_reduce<float>(three, four, ReduceOp::sum); });
    shape_error([&] { c.all_to_all_v<float>(four, counts, three, counts); });
    shape_error([&] { c.scatter_v<float>(three, counts, four, 0); });
    const auto error = [](auto f) {
      try {
        f();
      } catch (const Error&) {
        return;
      }
      throw std::logic_error("no Error");
    };
    std::vector<std::complex<float>> z(2);
    error([&] { c.all_reduce<std::complex<float>>(z, z, ReduceOp::max); });
    error([&] { c.broadcast<float>(three, 2); });
    error([&] { c.send<float>(three, c.rank()); });
    error([&] { (void)c.with_deadline(0ms); });
    error([&] { c.exchange_staged(CallInfo{}, three.data(), c.staged_limit + 1, [](const Peers&) {}); });
    all_reduce(c);  // still in step
  });
  CHECK_THROWS_AS(run_ranks(0, [](ThreadCommunicator) {}), Error);
}

TEST_CASE("collectives are traced once each, barriers and splits are not") {
  struct Listener : detail::CommListener {
    std::vector<CommEvent> events;
  };
  run_ranks(2, [&](ThreadCommunicator world) {
    const auto c = world.with_axis("tp");
    Listener listener;
    listener.on_event = [](detail::CommListener& l, const CommEvent& e) {
      static_cast<Listener&>(l).events.push_back(e);
    };
    listener.outer = detail::trace_state().listeners;
    detail::trace_state().listeners = &listener;
    all_reduce(c);
    all_reduce(c, 100000);
    std::vector<double> two(2), four(4);
    c.all_gather<double>(two, four);
    if (c.rank() == 0) c.send<double>(two, 1);
    if (c.rank() == 1) c.recv<double>(two, 0);
    c.barrier();
    (void)c.split(0, 0);
    detail::trace_state().listeners = listener.outer;
    const auto& e = listener.events;
    if (e.size() != 4) throw std::logic_error("not four events");
    if (e[0].collective != Collective::all_reduce || e[0].axis != "tp" || e[0].bytes != 16)
      throw std::logic_error("all_reduce");
    if (e[2].collective != Collective::all_gather || e[2].dtype != DType::float64 || e[2].bytes != 16)
      throw std::logic_error("all_gather");
    if (e[3].collective != (c.rank() == 0 ? Collective::send : Collective::recv)) throw std::logic_error("message");
  });
}

TEST_CASE("worlds nest and stand beside each other") {
  std::atomic<int> sum{0};
  run_ranks(3, [&](ThreadCommunicator outer) {
    run_ranks(2, [&](ThreadCommunicator inner) {
      all_reduce(inner);
      sum += inner.rank();
    });
    outer.barrier();
    try {
      run_ranks(2, [](ThreadCommunicator inner) {
        if (inner.rank() == 1) throw std::runtime_error("inside");
        inner.barrier();
      });
    } catch (const std::runtime_error&) {
      ++sum;
    }
    outer.barrier();
  });
  CHECK(sum == 6);
}
