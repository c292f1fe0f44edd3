// Where blocks come from: malloc, or a source that was set; each goes back to where it came from.
#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include <shardwise/base/buffer.hpp>

using namespace shardwise::detail;

namespace {

// Counts what it gave and took back; has nothing left above `largest`.
struct CountingSource : BlockSource {
  CountingSource() : BlockSource{&take_one, &give_one} {}

  static void* take_one(BlockSource& self, std::size_t bytes) noexcept {
    auto& source = static_cast<CountingSource&>(self);
    if (bytes > source.largest) return nullptr;
    source.outside += static_cast<std::int64_t>(bytes);
    ++source.taken;
    return std::aligned_alloc(64, bytes);
  }
  static void give_one(BlockSource& self, void* memory, std::size_t bytes) noexcept {
    static_cast<CountingSource&>(self).outside -= static_cast<std::int64_t>(bytes);
    std::free(memory);
  }

  std::size_t largest = std::size_t{1} << 20;
  std::int64_t outside = 0;
  int taken = 0;
};

struct ActiveSource {
  explicit ActiveSource(BlockSource& source) { block_source.store(&source); }
  ~ActiveSource() { block_source.store(nullptr); }
};

// Drops what this thread's cache keeps of a size.
void drop_cached(std::size_t bytes) { const Buffer another(bytes); }

struct Lent {
  int* returned;
};
void give_lent(Block& block) noexcept { ++*reinterpret_cast<Lent*>(&block + 1)->returned; }
void give_other(Block&) noexcept {}

TEST_CASE("memory elsewhere goes back once, when its last handle goes, and its block serves again") {
  int returned = 0;
  std::byte memory[100];
  const std::int64_t held = memory_count().held;
  {
    const Buffer buffer = Buffer::elsewhere(memory, sizeof memory, Lent{&returned}, &give_lent);
    CHECK(buffer.data() == memory);
    CHECK(buffer.owns());
    CHECK(memory_count().held == held + 100);
    REQUIRE(buffer.record<Lent>(&give_lent) != nullptr);
    CHECK(buffer.record<Lent>(&give_lent)->returned == &returned);
    CHECK(buffer.record<Lent>(&give_other) == nullptr);
    const Buffer second = buffer;
    CHECK(!buffer.exclusive());
    CHECK(returned == 0);
  }
  CHECK(returned == 1);
  CHECK(memory_count().held == held);
  {
    const Buffer plain(sizeof(Lent));
  }  // of the same size class: the block that was the record's
  CHECK(returned == 1);
  CHECK(Buffer(8).record<Lent>(&give_lent) == nullptr);
  CHECK(Buffer::view(memory).record<Lent>(&give_lent) == nullptr);
}

}  // namespace

TEST_CASE("new blocks come from the source that is set, and go back to the one that they came from") {
  CountingSource source;
  constexpr std::size_t bytes = 3000;
  {
    const Buffer earlier(bytes);
  }  // waits in the cache, from malloc
  const Buffer kept(bytes);
  {
    const ActiveSource active(source);
    const Buffer a(bytes), b(200);
    CHECK(source.taken == 2);
    CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
    CHECK(source.outside >= static_cast<std::int64_t>(bytes + 200));
  }
  drop_cached(bytes);
  drop_cached(200);
  CHECK(source.outside == 0);
}

TEST_CASE("a block that the source gave is used again without asking it") {
  CountingSource source;
  {
    const ActiveSource active(source);
    for (int i = 0; i < 10; ++i) const Buffer again(5000);
    CHECK(source.taken == (SHARDWISE_CACHE_BLOCKS ? 1 : 10));
  }
  drop_cached(5000);
  CHECK(source.outside == 0);
}

TEST_CASE("a source that has nothing left leaves it to malloc") {
  CountingSource source;
  const ActiveSource active(source);
  source.largest = 0;
  const Buffer large(10000);
  CHECK(large.data() != nullptr);
  CHECK(source.taken == 0);
  CHECK(large.exclusive());
}

#if defined(__linux__) && SHARDWISE_CACHE_BLOCKS

// Whether the memory at `at` may lie on huge pages, as the system lists it ("hg").
bool asks_for_huge_pages(const void* at) {
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long first = 0, last = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &last) == 2)
      inside = reinterpret_cast<unsigned long>(at) >= first && reinterpret_cast<unsigned long>(at) < last;
    else if (inside && line.starts_with("VmFlags:"))
      return line.find(" hg") != std::string::npos;
  }
  return false;
}

TEST_CASE("large blocks lie on huge pages where the system has them, but for what does not fill one") {
  if (std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").fail()) {
    MESSAGE("skipped: this system has no huge pages");
    return;
  }
  constexpr std::size_t page = BlockCache::huge_page;
  const Buffer large(40 * page + 1000);  // of a size that no other case here leaves in the cache
  CHECK(reinterpret_cast<std::uintptr_t>(large.data()) % page == sizeof(Block));
  CHECK(asks_for_huge_pages(large.data()));
  CHECK(asks_for_huge_pages(large.data() + 40 * page - sizeof(Block) - 1));
  CHECK_FALSE(asks_for_huge_pages(large.data() + 40 * page));
  const Buffer small(page - 1);
  CHECK_FALSE(asks_for_huge_pages(small.data()));
}

#endif
