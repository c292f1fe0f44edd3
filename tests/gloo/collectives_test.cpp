// Collectives over Gloo's connections between processes, against what each rank knows the others to have.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <shardwise/base/memory.hpp>
#include <shardwise/comm/communicator.hpp>

#include "comm/conformance.hpp"
#include "gloo/message_ranks.hpp"
#include "support/slow_build.hpp"

using namespace shardwise;
using namespace test;

static_assert(Communicator<MessageCommunicator> && ExchangesPacked<MessageCommunicator>);

namespace {

// Numbers whose sums depend on their order.
template <class T>
T term(int rank, std::int64_t i) {
  return static_cast<T>(
      static_cast<float>(1.0 / (1.0 + rank + static_cast<double>(i % 97)) * (i % 3 == 0 ? 1e5 : 1.0)));
}

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

template <class T>
void adds_in_rank_order(const MessageCommunicator& c, std::int64_t n) {
  const auto each = static_cast<std::size_t>(n);
  std::vector<T> in(each), right(each);
  for (std::int64_t i = 0; i < n; ++i) {
    in[static_cast<std::size_t>(i)] = term<T>(c.rank(), i);
    auto sum = static_cast<Accumulator<T>>(term<T>(0, i));
    for (int r = 1; r < c.size(); ++r)
      sum = static_cast<Accumulator<T>>(sum + static_cast<Accumulator<T>>(term<T>(r, i)));
    right[static_cast<std::size_t>(i)] = static_cast<T>(sum);
  }
  const std::string what = std::to_string(n) + " of " + to_string(dtype_of<T>);
  std::vector<T> out(each);
  c.all_reduce<T>(in, out, ReduceOp::sum);
  expect_each(each, [&](std::size_t i) { return same_bits(out[i], right[i]); }, "all_reduce of " + what);

  // The last rank's part is what an even division leaves.
  std::vector<std::int64_t> counts(static_cast<std::size_t>(c.size()), n / c.size());
  counts.back() += n % c.size();
  std::vector<T> part(static_cast<std::size_t>(counts[static_cast<std::size_t>(c.rank())]));
  c.reduce_scatter_v<T>(in, part, counts, ReduceOp::sum);
  const auto at = static_cast<std::size_t>(c.rank() * (n / c.size()));
  expect_each(
      part.size(), [&](std::size_t i) { return same_bits(part[i], right[at + i]); }, "reduce_scatter_v of " + what);

  c.all_reduce<T>(in, in, ReduceOp::sum);
  expect(n == 0 || std::memcmp(in.data(), right.data(), each * sizeof(T)) == 0, "all_reduce in place of " + what);
}

template <class T>
void gathers_and_spreads(const MessageCommunicator& c, std::int64_t n) {
  const auto value = [](int r, std::int64_t i) { return static_cast<T>(static_cast<float>((r * 31 + i) % 251)); };
  const auto each = static_cast<std::size_t>(n);
  std::vector<T> in(each), all(each * static_cast<std::size_t>(c.size())), data(each), part(each);
  for (std::int64_t i = 0; i < n; ++i) in[static_cast<std::size_t>(i)] = value(c.rank(), i);
  c.all_gather<T>(in, all);
  const auto gathered = [&](std::size_t i) {
    return all[i] == value(static_cast<int>(i / each), static_cast<std::int64_t>(i % each));
  };
  expect_each(all.size(), gathered, "all_gather");
  const int root = c.size() - 1;
  if (c.rank() == root) data = in;
  c.broadcast<T>(data, root);
  expect_each(each, [&](std::size_t i) { return data[i] == value(root, static_cast<std::int64_t>(i)); }, "broadcast");
  c.scatter<T>(all, part, root);
  expect(part == in, "scatter");
  c.barrier();
}

// Blocks of different sizes between all ranks: byte i of what r has for s.
std::byte block_byte(int r, int s, std::size_t i) {
  return static_cast<std::byte>((static_cast<std::size_t>(r * 7 + s * 3) + i * 5) & 255);
}
std::size_t block_size(int r, int s, std::size_t scale) {
  return (r + 2 * s) % 4 == 1 ? 0 : static_cast<std::size_t>(1 + r + s * 2) * scale;
}

// Every third peer's block lies ready; those of even peers shall lie in `places`, the others' are unpacked to `unpacked`, where given.
struct Pieces {
  int rank;
  std::size_t scale;
  std::vector<std::vector<std::byte>>& places;
  std::vector<std::vector<std::byte>>* unpacked = nullptr;
  std::vector<std::vector<std::byte>> ready{};

  void pack(int peer, std::size_t at, std::size_t bytes, std::byte* to) const {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = block_byte(rank, peer, at + i);
  }
  const std::byte* source(int peer) const {
    return ready.empty() || peer % 3 != 0 ? nullptr : ready[static_cast<std::size_t>(peer)].data();
  }
  std::byte* place(int peer) const {
    std::vector<std::byte>& here = places[static_cast<std::size_t>(peer)];
    return here.empty() ? nullptr : here.data();
  }
  bool unpacks() const { return unpacked != nullptr; }
  void unpack(int peer, std::size_t at, std::size_t bytes, const std::byte* from) const {
    std::vector<std::byte>& whole = (*unpacked)[static_cast<std::size_t>(peer)];
    if (whole.size() < at + bytes) whole.resize(at + bytes);
    std::copy_n(from, bytes, whole.begin() + static_cast<std::ptrdiff_t>(at));
  }
};

// In pieces where `in_place`, and what has no place `unpacked`; else whole.
void exchanges_packed(const MessageCommunicator& c, std::size_t scale, bool in_place, bool unpacked = false) {
  const auto ranks = static_cast<std::size_t>(c.size());
  std::vector<std::int64_t> sends(ranks), receives(ranks);
  std::vector<std::vector<std::byte>> places(ranks), taken(ranks);
  for (int r = 0; r < c.size(); ++r) {
    sends[static_cast<std::size_t>(r)] = static_cast<std::int64_t>(block_size(c.rank(), r, scale));
    receives[static_cast<std::size_t>(r)] = static_cast<std::int64_t>(block_size(r, c.rank(), scale));
    places[static_cast<std::size_t>(r)].resize(in_place && r % 2 == 0 ? block_size(r, c.rank(), scale) : 0);
  }
  CallInfo call;
  call.collective = Collective::all_to_all;
  c.on_messages(call, [&](detail::MessageChannel& channel) {
    Pieces pieces{c.rank(), scale, places, unpacked ? &taken : nullptr};
    for (int r = 0; r < c.size(); ++r) {
      pieces.ready.emplace_back(block_size(c.rank(), r, scale));
      pieces.pack(r, 0, pieces.ready.back().size(), pieces.ready.back().data());
    }
    const auto whole = [&](int peer, std::byte* to) { pieces.pack(peer, 0, block_size(c.rank(), peer, scale), to); };
    const detail::PackedBlocks got(channel, sends, receives, in_place ? PackFunction(pieces) : PackFunction(whole));
    for (int r = 0; r < c.size(); ++r) {
      const std::vector<std::byte>&place = places[static_cast<std::size_t>(r)],
            &here = taken[static_cast<std::size_t>(r)];
      const std::size_t bytes = block_size(r, c.rank(), scale);
      const bool was_unpacked = unpacked && place.empty();
      const std::byte* const block = was_unpacked ? here.data() : got[r];
      expect(was_unpacked ? got[r] == nullptr && here.size() == bytes : here.empty(), "what is unpacked");
      expect_each(
          bytes, [&](std::size_t i) { return block[i] == block_byte(r, c.rank(), i); },
          "bytes from " + std::to_string(r));
      expect(place.empty() || got[r] == place.data(), "its place");
    }
  });
  c.exchange_packed(
      call, sends, receives,
      [&](int peer, std::byte* to) {
        for (std::size_t i = 0; i < block_size(c.rank(), peer, scale); ++i) to[i] = block_byte(c.rank(), peer, i);
      },
      [&](const Peers& peers) {
        for (int r = 0; r < peers.size; ++r)
          for (std::size_t i = 0; i < block_size(r, c.rank(), scale); ++i)
            expect(peers.in[r][i] == block_byte(r, c.rank(), i), "what the body sees");
      });
}

}  // namespace

TEST_CASE("messages do what every communicator does") {
  for (const int n : {1, 2, 3, 4, 5, 7}) {
    CAPTURE(n);
    CHECK(run_gloo(n, [](const MessageCommunicator& c) { conforms(c); }) == "");
  }
}

TEST_CASE("sums have the bits of an addition in rank order") {
  for (const int n : {1, 2, 3, 4, 5, 7}) {
    CAPTURE(n);
    CHECK(run_gloo(n, [](const MessageCommunicator& c) {
            for (const std::int64_t count : {0, 1, 1023, 1024, 40000}) {
              adds_in_rank_order<float>(c, count);
              adds_in_rank_order<double>(c, count);
              adds_in_rank_order<std::int64_t>(c, count);
              adds_in_rank_order<bfloat16>(c, count);
            }
          }) == "");
  }
}

TEST_CASE("large messages arrive whole") {
  for (const int n : {2, 3, 4}) {
    CAPTURE(n);
    CHECK(run_gloo(n, [](const MessageCommunicator& c) {
            adds_in_rank_order<float>(c, 262144 + 3);
            gathers_and_spreads<double>(c, 131072 + 1);
          }) == "");
  }
  CHECK(run_gloo(2, [](const MessageCommunicator& c) {
          adds_in_rank_order<float>(c, slow_build ? 1 << 20 : 1 << 23);
          gathers_and_spreads<std::int64_t>(c, slow_build ? 1 << 20 : 1 << 23);
        }) == "");
}

TEST_CASE("more ranks than send to each other directly") {
  for (const int n : {9, 12}) {
    CAPTURE(n);
    CHECK(run_gloo(n, [](const MessageCommunicator& c) {
            for (const std::int64_t count : {1, 100, 1000, 5000}) gathers_and_spreads<float>(c, count);
            gathers_and_spreads<bfloat16>(c, 200001);
            adds_in_rank_order<float>(c, 5000);
            std::vector<std::int64_t> counts(static_cast<std::size_t>(c.size()));
            for (std::size_t r = 0; r < counts.size(); ++r) counts[r] = static_cast<std::int64_t>(r % 3 == 1 ? 0 : r);
            std::vector<float> mine(static_cast<std::size_t>(counts[static_cast<std::size_t>(c.rank())]),
                                    static_cast<float>(c.rank()));
            std::vector<float> all(static_cast<std::size_t>(detail::sum_before(counts, c.size()))), part(mine.size());
            c.all_gather_v<float>(mine, all, counts);
            std::size_t at = 0;
            for (std::size_t r = 0; r < counts.size(); ++r)
              for (std::int64_t i = 0; i < counts[r]; ++i) expect(all[at++] == static_cast<float>(r), "all_gather_v");
            c.scatter_v<float>(all, counts, part, 3);
            expect(part == mine, "scatter_v");
          }) == "");
  }
}

// By name: which one a call takes depends on sizes and numbers of ranks.
TEST_CASE("every way of an all_gather, a scatter, a broadcast and a reduction gives the same") {
  for (const int n : {2, 3, 5, 9}) {
    CAPTURE(n);
    CHECK(
        run_gloo(n, [](const MessageCommunicator& c) {
          std::vector<std::int64_t> counts(static_cast<std::size_t>(c.size()));
          for (std::size_t r = 0; r < counts.size(); ++r)
            counts[r] = static_cast<std::int64_t>(r % 3 == 1 ? 0 : 1 + r * 5000);
          const detail::BlockOffsets at(counts, sizeof(float));
          std::vector<float> right;
          for (int r = 0; r < c.size(); ++r)
            right.insert(right.end(), static_cast<std::size_t>(counts[static_cast<std::size_t>(r)]),
                         static_cast<float>(r + 1));
          const auto bytes = [](std::vector<float>& v) { return reinterpret_cast<std::byte*>(v.data()); };
          const auto own = [&](std::size_t i) { return right[i] == static_cast<float>(c.rank() + 1); };
          CallInfo call;
          call.collective = Collective::all_gather;
          using detail::MessageChannel;
          for (const auto gather : {&detail::all_gather_direct, &detail::all_gather_bruck, &detail::all_gather_ring}) {
            std::vector<float> all(right.size(), 0.0f);
            for (std::size_t i = 0; i < all.size(); ++i)
              if (own(i)) all[i] = right[i];
            c.on_messages(call, [&](MessageChannel& channel) { gather(channel, bytes(all), at); });
            expect(all == right, "all_gather");
          }
          for (const auto scatter : {&detail::scatter_direct, &detail::scatter_tree})
            for (const int root : {0, c.size() - 1}) {
              std::vector<float> all(right), part(static_cast<std::size_t>(counts[static_cast<std::size_t>(c.rank())]));
              if (c.rank() != root) all.assign(all.size(), 0.0f);
              c.on_messages(call,
                            [&](MessageChannel& channel) { scatter(channel, bytes(all), bytes(part), at, root); });
              expect(part == std::vector<float>(part.size(), static_cast<float>(c.rank() + 1)), "scatter");
            }
          for (const auto broadcast : {&detail::broadcast_tree, &detail::broadcast_scattered}) {
            std::vector<float> all(right);
            if (c.rank() != 1) all.assign(all.size(), 0.0f);
            c.on_messages(
                call, [&](MessageChannel& channel) { broadcast(channel, bytes(all), all.size() * sizeof(float), 1); });
            expect(all == right, "broadcast");
          }
          std::vector<float> in(right.size()), sums(in.size());
          const auto term = [](int r, std::size_t i) {
            return 0.1f * static_cast<float>(r + 1) + static_cast<float>(i % 7);
          };
          for (std::size_t i = 0; i < in.size(); ++i) {
            in[i] = term(c.rank(), i);
            for (int r = 0; r < c.size(); ++r) sums[i] = r == 0 ? term(0, i) : sums[i] + term(r, i);
          }
          const auto mine = static_cast<std::ptrdiff_t>(at[c.rank()] / sizeof(float));
          const std::ptrdiff_t count = counts[static_cast<std::size_t>(c.rank())];
          const std::vector<float> wanted(sums.begin() + mine, sums.begin() + mine + count);
          for (const std::size_t slab :
               {std::size_t{1} << 10, std::size_t{1} << 12, std::size_t{20'004}, std::size_t{1} << 22})
            for (const bool in_place : {false, true}) {
              if (slab < 4096 && slow_build) continue;
              std::vector<float> data(in), part(wanted.size());
              const auto before = memory_allocated();
              reset_peak_memory_stats();
              c.on_messages(call, [&](MessageChannel& channel) {
                detail::reduce_scatter_bytes(channel, detail::reduce_kernels<float>, bytes(data),
                                             in_place ? bytes(data) + at[c.rank()] : bytes(part), at, ReduceOp::sum,
                                             slab);
              });
              if (in_place) part.assign(data.begin() + mine, data.begin() + mine + count);
              const auto others = static_cast<std::size_t>(c.size() - 1);
              expect(static_cast<std::size_t>(max_memory_allocated() - before) ==
                         others * std::min(slab, wanted.size() * sizeof(float)),
                     "the terms of a slab");
              expect(part == wanted, "reduce_scatter in slabs of " + std::to_string(slab));
            }
          for (const auto reduce : {&detail::all_reduce_in_one_step, &detail::all_reduce_in_two_steps}) {
            std::vector<float> equal(right), sum(equal.size());
            const auto ranks = static_cast<float>(c.size());
            c.on_messages(call, [&](MessageChannel& channel) {
              reduce(channel, detail::reduce_kernels<float>, bytes(equal), bytes(sum), equal.size() * sizeof(float),
                     ReduceOp::sum);
            });
            bool same = true;
            for (std::size_t i = 0; i < sum.size(); ++i) same = same && sum[i] == ranks * right[i];
            expect(same, "all_reduce");
          }
        }) == "");
  }
}

TEST_CASE("two ranks send each other 256 MiB at once, three in a circle") {
  CHECK(run_gloo(2, [](const MessageCommunicator& c) {
          const std::size_t n = std::size_t{1} << (slow_build ? 22 : 26);
          std::vector<std::int32_t> in(n, c.rank() + 1), out(n);
          std::array<std::int64_t, 2> sends{};
          sends[c.rank() == 0 ? 1 : 0] = static_cast<std::int64_t>(n);
          c.all_to_all_v<std::int32_t>(in, sends, out, sends);
          expect_each(n, [&](std::size_t i) { return out[i] == 2 - c.rank(); }, "what the other sent");
        }) == "");
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          const std::int64_t n = std::int64_t{1} << (slow_build ? 20 : 23);
          std::vector<std::int32_t> in(static_cast<std::size_t>(n), c.rank()), out(in.size());
          std::array<std::int64_t, 3> sends{}, receives{};
          sends[static_cast<std::size_t>((c.rank() + 1) % 3)] = n;
          receives[static_cast<std::size_t>((c.rank() + 2) % 3)] = n;
          c.all_to_all_v<std::int32_t>(in, sends, out, receives);
          for (const std::int32_t x : out) expect(x == (c.rank() + 2) % 3, "what the rank before sent");
        }) == "");
}

TEST_CASE("blocks are packed by the caller and lie where it wants them") {
  for (const int n : {1, 2, 3, 5})
    for (const std::size_t scale : {std::size_t{1}, std::size_t{700}, std::size_t{slow_build ? 20000 : 150000}}) {
      CAPTURE(n);
      CAPTURE(scale);
      CHECK(run_gloo(n, [&](const MessageCommunicator& c) {
              exchanges_packed(c, scale, false);
              exchanges_packed(c, scale, true);
              exchanges_packed(c, scale, true, true);
            }) == "");
    }
}
