// 10,000 random collectives in a row, ranks coming to each after random delays: every element is what the words of the collective
// say, and the checksums of all ranks agree at the end.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/testing/doctest.hpp>

#include "support/random.hpp"
#include "support/slow_build.hpp"

using namespace shardwise;
using shardwise::testing::World;

namespace {

int steps() {
  const char* given = std::getenv("SHARDWISE_TEST_SOAK_STEPS");
  if (given != nullptr) return std::atoi(given);
  return test::slow_build ? 1000 : 10000;
}

// What rank r brings to a step: integers that every type and every sum of a few holds exactly.
template <class T>
T brought(int step, int rank, std::int64_t i) {
  return static_cast<T>((step * 31 + rank * 7 + i * 5) % 97);
}
template <class T>
std::vector<T> brought_by(int step, int rank, std::int64_t n) {
  std::vector<T> x;
  for (std::int64_t i = 0; i < n; ++i) x.push_back(brought<T>(step, rank, i));
  return x;
}

// One step of one rank: the collective, compared element by element. All ranks draw the same from `random`.
template <class T>
class Step {
 public:
  Step(const World& ranks, int number, test::Random& random)
      : ranks_(ranks), number_(number), me_(ranks.rank()), size_(ranks.size()) {
    const std::int64_t kind = random.below(40);
    n_ = kind == 0 ? 40000 + random.below(40000) : kind < 4 ? random.below(4000) : random.below(200);
    root_ = static_cast<int>(random.below(size_));
    op_ = random.below(2) == 0 ? ReduceOp::sum : ReduceOp::max;
    run(random);
  }

  std::int64_t wrong = 0;
  std::uint64_t checksum = 0;  // of what follows for all ranks alike

 private:
  void run(test::Random& random) {
    switch (random.below(8)) {
      case 0: return all_reduce();
      case 1: return all_gather();
      case 2: return reduce_scatter();
      case 3: return all_to_all(random.below(50));
      case 4: return broadcast();
      case 5: return scatter();
      case 6: return around();
      default: return ranks_.barrier();
    }
  }

  T whole(int rank, std::int64_t i) const { return brought<T>(number_, rank, i); }
  T reduced(std::int64_t i) const {
    T all = whole(0, i);
    for (int r = 1; r < size_; ++r)
      all = op_ == ReduceOp::sum ? static_cast<T>(all + whole(r, i)) : std::max(all, whole(r, i));
    return all;
  }
  std::vector<T> mine(std::int64_t n) const { return brought_by<T>(number_, me_, n); }
  static std::vector<T> room(std::int64_t n) { return std::vector<T>(static_cast<std::size_t>(n), T(98)); }

  template <class Right>
  void compare(const std::vector<T>& got, std::int64_t first, Right right) {
    for (std::size_t i = 0; i < got.size(); ++i) wrong += got[i] != right(first + static_cast<std::int64_t>(i));
  }
  void add(const std::vector<T>& got) {
    for (const T x : got) checksum = checksum * 1000003u + static_cast<std::uint64_t>(x);
  }

  void all_reduce() {
    std::vector<T> out = room(n_);
    ranks_.template all_reduce<T>(mine(n_), out, op_);
    compare(out, 0, [&](std::int64_t i) { return reduced(i); });
    add(out);
  }
  void all_gather() {
    std::vector<T> out = room(n_ * size_);
    ranks_.template all_gather<T>(mine(n_), out);
    compare(out, 0, [&](std::int64_t i) { return whole(static_cast<int>(i / n_), i % n_); });
    add(out);
  }
  void reduce_scatter() {
    std::vector<T> out = room(n_);
    ranks_.template reduce_scatter<T>(mine(n_ * size_), out, op_);
    compare(out, me_ * n_, [&](std::int64_t i) { return reduced(i); });
  }
  void all_to_all(std::int64_t step) {  // rank r sends n + step * (r + s) elements to rank s
    std::vector<std::int64_t> counts;
    std::int64_t all = 0, before = 0;
    for (int r = 0; r < size_; ++r) all += counts.emplace_back(n_ + step * (r + me_));
    std::vector<T> out = room(all);
    ranks_.template all_to_all_v<T>(mine(all), counts, out, counts);
    for (int r = 0; r < size_; ++r) {
      std::int64_t skipped = 0;  // what r sends to the ranks before this one
      for (int s = 0; s < me_; ++s) skipped += n_ + step * (r + s);
      const std::int64_t length = counts[static_cast<std::size_t>(r)];
      const std::vector<T> block(out.begin() + before, out.begin() + before + length);
      compare(block, skipped, [&](std::int64_t i) { return whole(r, i); });
      before += length;
    }
  }
  void broadcast() {
    std::vector<T> data = me_ == root_ ? mine(n_) : room(n_);
    ranks_.template broadcast<T>(data, root_);
    compare(data, 0, [&](std::int64_t i) { return whole(root_, i); });
    add(data);
  }
  void scatter() {
    std::vector<T> out = room(n_);
    ranks_.template scatter<T>(me_ == root_ ? mine(n_ * size_) : std::vector<T>(), out, root_);
    compare(out, me_ * n_, [&](std::int64_t i) { return whole(root_, i); });
  }
  void around() {  // to the next rank; the last one takes first
    if (size_ == 1) return;
    std::vector<T> in = room(n_);
    const int next = (me_ + 1) % size_, previous = (me_ + size_ - 1) % size_;
    const auto send = [&] { ranks_.template send<T>(mine(n_), next); };
    if (me_ != size_ - 1) send();
    ranks_.template recv<T>(in, previous);
    if (me_ == size_ - 1) send();
    compare(in, 0, [&](std::int64_t i) { return whole(previous, i); });
  }

  const World& ranks_;
  const int number_, me_, size_;
  std::int64_t n_ = 0;
  int root_ = 0;
  ReduceOp op_ = ReduceOp::sum;
};

// Every few hundred steps the ranks work in two groups for one step.
template <class T>
void run_step(const World& world, int number, test::Random& random, std::int64_t& wrong, std::uint64_t& checksum) {
  if (number % 250 == 249) {
    const auto half = world.split(world.rank() % 2, world.rank());
    wrong += Step<T>(*half, number, random).wrong;
  } else {
    const Step<T> step(world, number, random);
    wrong += step.wrong;
    checksum = checksum * 31 + step.checksum;
  }
}

}  // namespace

SHARDWISE_TEST_RANKS("a soak of random collectives with random delays ends with equal checksums", 4) {
  test::Random random{0x2545f4914f6cdd1d}, delays{0x9e3779b9u + static_cast<std::uint64_t>(world.rank())};
  std::int64_t wrong = 0;
  std::uint64_t checksum = 0;
  for (int i = 0; i < steps(); ++i) {
    if (delays.below(10) == 0) std::this_thread::sleep_for(std::chrono::microseconds(delays.below(200)));
    if (random.below(2) == 0)
      run_step<float>(world, i, random, wrong, checksum);
    else
      run_step<std::int64_t>(world, i, random, wrong, checksum);
  }
  CHECK(wrong == 0);
  const auto mine = static_cast<std::int64_t>(checksum);
  std::vector<std::int64_t> all(4);
  world.all_gather<std::int64_t>(std::span<const std::int64_t>(&mine, 1), std::span<std::int64_t>(all));
  for (const std::int64_t other : all) CHECK(other == mine);
}
