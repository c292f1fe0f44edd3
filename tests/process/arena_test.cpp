// The arena: what it gives never overlaps and is given again, grows where it stands, returns memory to the system, and is
// read, never written, by other processes.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardwise/backends/process/arena.hpp>

#include "process/forked.hpp"

using namespace shardwise::detail;
using test::expect;

namespace {

constexpr std::size_t MiB = std::size_t{1} << 20;

// Blocks of the file that hold memory.
std::uint64_t held_bytes(const Arena& arena) {
  struct stat file{};
  fstat(arena.share().get(), &file);
  return static_cast<std::uint64_t>(file.st_blocks) * 512;
}

// Takes and gives at random, against a map of what is out. `small`: parts of less than a page too.
void take_and_give(bool small, std::uint64_t limit, RangeAllocator& ranges) {
  std::mt19937 random(7);
  std::map<std::uint64_t, std::uint64_t> taken;  // begin, end
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0 || taken.empty()) {
      const std::uint64_t bytes = small && random() % 3 != 0 ? 1 + random() % 3000 : 33000 + random() % 300000;
      const std::uint64_t at = ranges.take(bytes);
      refused += at == RangeAllocator::none;
      if (at == RangeAllocator::none) continue;
      REQUIRE(at % 64 == 0);
      REQUIRE(at + bytes <= ranges.end());
      REQUIRE(ranges.end() <= limit);
      const auto after = taken.lower_bound(at);
      REQUIRE((after == taken.end() || after->first >= at + bytes));
      REQUIRE((after == taken.begin() || std::prev(after)->second <= at));
      taken[at] = at + bytes;
    } else {
      auto which = taken.lower_bound(random() % limit);
      if (which == taken.end()) which = taken.begin();
      ranges.give(which->first, which->second - which->first);
      taken.erase(which);
    }
  }
  CHECK(refused < 2000);
  for (const auto& [at, end] : taken) ranges.give(at, end - at);
}

struct OwnArena {
  std::string obstacle;
  Arena arena;
  explicit OwnArena(std::size_t reserve = std::size_t{1} << 30) : arena(reserve, obstacle) { REQUIRE(obstacle == ""); }
};

}  // namespace

TEST_CASE("parts of a range never overlap, keep to their alignment, and are given again") {
  constexpr std::uint64_t limit = 32 * MiB;
  RangeAllocator any(limit), large(limit);
  take_and_give(true, limit, any);
  take_and_give(false, limit, large);
  CHECK(large.take(limit) == 0);  // all neighbours were merged
}

TEST_CASE("every size up to 40000 bytes fits into what is given for it") {
  RangeAllocator ranges(std::uint64_t{4} << 30);
  for (std::uint64_t bytes = 1; bytes <= 40000; bytes += 13) {
    const std::uint64_t a = ranges.take(bytes), b = ranges.take(bytes);
    REQUIRE((a >= b ? a - b : b - a) >= bytes);
    ranges.give(a, bytes);
    REQUIRE(ranges.take(bytes) == a);  // the last one back is the first out
  }
}

TEST_CASE("large parts that were given back are merged and given as one") {
  RangeAllocator ranges(64 * MiB);
  const std::uint64_t a = ranges.take(8 * MiB), b = ranges.take(8 * MiB), c = ranges.take(8 * MiB);
  const std::uint64_t wall = ranges.take(MiB);
  CHECK((a == 0 && b == 8 * MiB && c == 16 * MiB && wall == 24 * MiB));
  ranges.give(a, 8 * MiB);
  ranges.give(c, 8 * MiB);
  CHECK(ranges.take(9 * MiB) == 25 * MiB);  // fits into neither
  ranges.give(b, 8 * MiB);
  CHECK(ranges.take(24 * MiB) == 0);
  CHECK(ranges.take(64 * MiB) == RangeAllocator::none);
}

TEST_CASE("free memory beyond 64 MiB goes back to the system, once") {
  RangeAllocator ranges(std::uint64_t{1} << 30);
  std::vector<std::uint64_t> parts;
  for (int i = 0; i < 16; ++i) parts.push_back(ranges.take(16 * MiB));
  std::uint64_t returned = 0;
  for (int i = 0; i < 16; i += 2) returned += ranges.give(parts[static_cast<std::size_t>(i)], 16 * MiB).bytes;
  CHECK(returned == 4 * 16 * MiB);
  CHECK(ranges.give(ranges.take(16 * MiB), 16 * MiB).bytes == 0);  // one of those that are kept
}

TEST_CASE("an arena grows where it stands, and a process that mapped it before sees what is written after") {
  OwnArena own;
  Arena& arena = own.arena;
  const PeerArena peer(arena.share(), arena.reserve());
  REQUIRE(static_cast<bool>(peer));
  auto* const small = static_cast<char*>(arena.take(100));
  std::memcpy(small, "first", 6);
  const std::uint64_t before = arena.size();
  auto* const large = static_cast<char*>(arena.take(200 * MiB));
  CHECK(arena.size() >= before + 128 * MiB);
  std::memcpy(large + 200 * MiB - 6, "after", 6);
  const auto* seen = reinterpret_cast<const char*>(peer.data());
  CHECK(std::string(seen + arena.offset_of(small)) == "first");
  CHECK(std::string(seen + arena.offset_of(large + 200 * MiB - 6)) == "after");
  arena.give(large, 200 * MiB);
  CHECK(arena.take(200 * MiB) == large);
  CHECK(arena.size() >= before + 128 * MiB);
}

TEST_CASE("an arena gives memory back, and reads as zeros where it did") {
  OwnArena own;
  Arena& arena = own.arena;
  auto* const block = static_cast<std::byte*>(arena.take(256 * MiB));
  auto* const wall = static_cast<std::byte*>(arena.take(MiB));
  std::memset(block, 1, 256 * MiB);
  std::memset(wall, 2, MiB);
  CHECK(held_bytes(arena) >= 257 * MiB);
  arena.give(block, 256 * MiB);
  CHECK(held_bytes(arena) < 16 * MiB);
  auto* const again = static_cast<std::byte*>(arena.take(128 * MiB));
  CHECK(std::count(again, again + MiB, std::byte{0}) == static_cast<std::ptrdiff_t>(MiB));
  CHECK(std::count(wall, wall + MiB, std::byte{2}) == static_cast<std::ptrdiff_t>(MiB));
}

TEST_CASE("an arena that is full says so") {
  OwnArena own(4 * MiB);
  CHECK(own.arena.take(5 * MiB) == nullptr);
  void* const most = own.arena.take(4 * MiB);
  CHECK(most != nullptr);
  CHECK(own.arena.take(1) == nullptr);
  own.arena.give(most, 4 * MiB);
  CHECK(own.arena.take(1) != nullptr);
}

TEST_CASE("an arena that the system cannot give is an obstacle in words") {
  std::string obstacle;
  const Arena arena(std::size_t{1} << 60, obstacle);
  CHECK(!arena.works());
  CHECK(obstacle.find("of address space") != std::string::npos);
}

TEST_CASE("what a process shares can be read but not written, not mapped for writing, and not shrunk") {
  OwnArena own;
  Arena& arena = own.arena;
  auto* const value = static_cast<std::int64_t*>(arena.take(64));
  *value = 42;
  const Descriptor shared = arena.share();
  CHECK(fcntl(shared.get(), F_GETFD) == FD_CLOEXEC);
  CHECK(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared.get(), 0) == MAP_FAILED);
  CHECK(write(shared.get(), "x", 1) == -1);
  CHECK(ftruncate(shared.get(), 0) == -1);
  const std::string path = "/proc/self/fd/" + std::to_string(shared.get());
  const Descriptor writable(open(path.c_str(), O_RDWR | O_CLOEXEC));  // whoever insists: not even so
  REQUIRE(static_cast<bool>(writable));
  CHECK(ftruncate(writable.get(), 0) == -1);

  const PeerArena peer(shared, arena.reserve());
  auto* const page = const_cast<std::byte*>(peer.data());
  CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == -1);
  CHECK(*reinterpret_cast<const std::int64_t*>(peer.data() + arena.offset_of(value)) == 42);
}

TEST_CASE("a process that writes into another's arena is stopped by the system, and nothing has changed") {
  OwnArena own;
  Arena& arena = own.arena;
  auto* const value = static_cast<std::int64_t*>(arena.take(64));
  *value = 42;
  test::ForkedRanks writer(1, [&](int) {
    signal(SIGSEGV, SIG_DFL);  // no sanitizer's report
    const PeerArena peer(arena.share(), arena.reserve());
    auto* const target = reinterpret_cast<const std::int64_t*>(peer.data() + arena.offset_of(value));
    expect(*target == 42, "the peer's value, read");
    *const_cast<volatile std::int64_t*>(target) = 1;
  });
  CHECK(writer.last_words()[0] == "killed by signal 11");
  CHECK(*value == 42);
}

TEST_CASE("threads take and give at once, and nobody writes into another's block") {
  OwnArena own;
  Arena& arena = own.arena;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      const auto mark = static_cast<unsigned char>(t + 1);
      std::vector<std::pair<unsigned char*, std::size_t>> mine;
      const auto drop = [&] {
        const auto [block, bytes] = mine.back();
        wrong += std::count(block, block + bytes, mark) != static_cast<std::ptrdiff_t>(bytes);
        mine.pop_back();
        arena.give(block, bytes);
      };
      for (int i = 0; i < 2000; ++i) {
        if (mine.size() > 20) drop(), drop();
        const std::size_t bytes = random() % 10 == 0 ? 1 + random() % 100000 : 1 + random() % 500;
        auto* const block = static_cast<unsigned char*>(arena.take(bytes));
        std::memset(block, mark, bytes);
        mine.emplace_back(block, bytes);
      }
      while (!mine.empty()) drop();
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

// In a process of its own: the arena of a process stays.
TEST_CASE("buffers lie in the arena of the process once there is one; earlier ones do not and stay what they were") {
  CHECK(test::run_forked(1, [](int) {
          const Buffer earlier(1000);
          std::memset(earlier.data(), 3, 1000);
          {
            const Buffer cached(100);
          }
          std::string obstacle;
          Arena* const arena = Arena::of_process(obstacle);
          expect(arena != nullptr, "an arena: " + obstacle);
          expect(Arena::of_process(obstacle) == arena, "one arena a process");
          expect(!arena->contains(earlier.data()), "a block from before outside the arena");
          for (const std::size_t bytes : {std::size_t{1}, std::size_t{100}, std::size_t{100000}, 100 * MiB}) {
            const Buffer b(bytes);
            expect(arena->contains(b.data()), "a block of " + std::to_string(bytes) + " bytes in the arena");
            std::memset(b.data(), 1, bytes);
          }
          expect(earlier.data()[999] == std::byte{3}, "the earlier block as it was");
        }) == "");
}

TEST_CASE("a fork's child reads the parent's tensors, cannot change them, and has an arena of its own") {
  CHECK(test::run_forked(1, [](int) {
          std::string obstacle;
          Arena* const arena = Arena::of_process(obstacle);
          Buffer mine(5000);
          std::memset(mine.data(), 7, 5000);
          const std::string said = test::run_forked(1, [&](int) {
            expect(mine.data()[4999] == std::byte{7}, "the parent's bytes in the child");
            std::memset(mine.data(), 9, 5000);
            {
              const Buffer plain(5000);
            }
            mine = Buffer();
            Arena* const own = Arena::of_process(obstacle);
            expect(own != nullptr && own != arena, "another arena in the child");
            const Buffer b(5000);
            expect(own->contains(b.data()), "the child's block in its own arena");
          });
          expect(said.empty(), "nothing from the child, not " + said);
          expect(mine.data()[0] == std::byte{7} && mine.data()[4999] == std::byte{7}, "the parent's bytes unchanged");
          const Buffer after(5000);
          expect(arena->contains(after.data()), "the parent goes on in its arena");
        }) == "");
}

TEST_CASE("an arena that is gone leaves no descriptor; what is executed meanwhile inherits none") {
  const int before = test::open_descriptors(), inheritable = test::inheritable_descriptors();
  {
    OwnArena own;
    const Descriptor shared = own.arena.share();
    const PeerArena peer(shared, own.arena.reserve());
    CHECK(test::open_descriptors() == before + 2);
    CHECK(test::inheritable_descriptors() == inheritable);
  }
  CHECK(test::open_descriptors() == before);
}
