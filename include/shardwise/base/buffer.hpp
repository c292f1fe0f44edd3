// Buffer: shared, 64-byte aligned bytes, or a view of the caller's. Freed blocks are kept per thread by size class, so that a
// repeated operation allocates nothing; what a thread holds is counted. Blocks come from malloc, large ones on huge pages where
// the system has them, or from memory that other processes can read (BlockSource). Memory elsewhere (a device's) has a block
// that stands for it. Layer: base.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

// Under the address sanitizer blocks go back to malloc at once: a reused one would hide a use after free.
#if defined(__SANITIZE_ADDRESS__)
#define SHARDWISE_CACHE_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHARDWISE_CACHE_BLOCKS 0
#endif
#endif
#ifndef SHARDWISE_CACHE_BLOCKS
#define SHARDWISE_CACHE_BLOCKS 1
#endif

namespace shardwise::detail {

// Where blocks come from instead of malloc: an arena that the processes of a host share, say. Once set it lives as long as the
// process. `take` gives `bytes` at a multiple of 64, or null where it has none: malloc has.
struct BlockSource {
  void* (*take)(BlockSource&, std::size_t bytes) noexcept;
  void (*give)(BlockSource&, void* memory, std::size_t bytes) noexcept;
};
inline std::atomic<BlockSource*> block_source{nullptr};  // of new blocks; null: malloc

struct alignas(64) Block {
  std::atomic<std::int64_t> owners;
  std::size_t size_class;
  Block* next;
  std::size_t counted;  // bytes of elements asked for
  BlockSource* source;  // goes back there
  std::size_t bytes;  // with this header
  // Gives back the memory elsewhere that this block stands for; null where the elements lie behind it. Of an object
  // (Ref): ends it.
  void (*leave)(Block&) noexcept = nullptr;
  std::atomic<std::int32_t> watchers{0};  // of an object: its weak references, and one more while it has owners
};

// Bytes of elements in the blocks that this thread took and has not given back, and the most that it ever was.
struct MemoryCount {
  std::int64_t held = 0;
  std::int64_t peak = 0;
};
inline MemoryCount& memory_count() {
  thread_local MemoryCount count;
  return count;
}

// Blocks of 2^c bytes wait in list c. A list holds at most 64 MiB or 4 blocks, whichever is more memory.
class BlockCache {
 public:
  static constexpr std::size_t huge_page = std::size_t{2} << 20;

  BlockCache() = default;
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;
  ~BlockCache() {
    alive() = false;
    for (List& list : lists_)
      while (list.head != nullptr) {
        Block* block = list.head;
        list.head = block->next;
        release(block);
      }
  }

  // Not inlined, as give: the cache and its guard would stand in every place that makes or drops something.
  [[gnu::noinline]] static Block* take(std::size_t bytes) {
    const std::size_t c = bytes <= 64 ? 6 : static_cast<std::size_t>(std::bit_width(bytes - 1));
    BlockSource* const source = block_source.load(std::memory_order_acquire);
    if (SHARDWISE_CACHE_BLOCKS && alive()) {
      List& list = local().lists_[c];
      while (list.head != nullptr) {
        Block* block = list.head;
        list.head = block->next;
        --list.count;
        if (block->source == source) [[likely]] {
          block->owners.store(1, std::memory_order_relaxed);
          return block;
        }
        release(block);  // older than the source
      }
    }
    // Large blocks are not rounded up to a power of two: that could double the footprint.
    const std::size_t rounded = (bytes + 63) / 64 * 64;
    const std::size_t size = SHARDWISE_CACHE_BLOCKS ? std::size_t{1} << c : rounded;
    return make(source, c, sizeof(Block) + size, bytes);
  }

  [[gnu::noinline]] static void give(Block* block) {
    if (SHARDWISE_CACHE_BLOCKS && alive()) {
      List& list = local().lists_[block->size_class];
      const std::size_t limit = block->size_class >= 24 ? 4 : (std::size_t{1} << 26) >> block->size_class;
      if (list.count < limit) {
        block->next = list.head;
        list.head = block;
        ++list.count;
        return;
      }
    }
    release(block);
  }

 private:
  struct List {
    Block* head = nullptr;
    std::size_t count = 0;
  };
  List lists_[64];

  [[gnu::noinline]] static Block* make(BlockSource* source, std::size_t size_class, std::size_t bytes,
                                       std::size_t asked) {
    void* memory = source != nullptr ? source->take(*source, bytes) : nullptr;
    if (memory == nullptr) {
      source = nullptr;
      memory =
          SHARDWISE_CACHE_BLOCKS && asked >= huge_page ? on_huge_pages(bytes, asked) : std::aligned_alloc(64, bytes);
    }
    if (memory == nullptr) throw std::bad_alloc();
    return new (memory) Block{{1}, size_class, nullptr, 0, source, bytes};
  }
  // Large moves take up to a quarter longer on small pages. What does not fill one stays on those: nobody pays for
  // memory that he did not ask for.
  static void* on_huge_pages(std::size_t bytes, std::size_t asked) {
    void* const memory = std::aligned_alloc(huge_page, (bytes + huge_page - 1) / huge_page * huge_page);
#if defined(MADV_HUGEPAGE)
    if (memory != nullptr) madvise(memory, asked / huge_page * huge_page, MADV_HUGEPAGE);  // where the system has them
#else
    static_cast<void>(asked);
#endif
    return memory;
  }
  static void release(Block* block) {
    if (block->source != nullptr) [[unlikely]]
      block->source->give(*block->source, block, block->bytes);
    else
      std::free(block);
  }

  static BlockCache& local() {
    thread_local BlockCache cache;
    return cache;
  }
  // False once this thread's cache is gone: buffers of other thread-local or static objects may follow it.
  static bool& alive() {
    thread_local bool flag = true;
    return flag;
  }
};

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) : Buffer(bytes, BlockCache::take(bytes)) {}
  // `bytes` at `data`, which lie elsewhere: `record`, made where the elements of a buffer of its own would be, says how
  // `leave` gives them back.
  template <class Record>
  static Buffer elsewhere(void* data, std::size_t bytes, const Record& record, void (*leave)(Block&) noexcept) {
    static_assert(alignof(Record) <= 64);
    Buffer b(bytes, BlockCache::take(sizeof(Record)));
    new (b.data_) Record(record);
    b.data_ = static_cast<std::byte*>(data);
    b.owner_->leave = leave;
    return b;
  }
  // The record of memory elsewhere that `leave` gives back; null for any other.
  template <class Record>
  Record* record(void (*leave)(Block&) noexcept) const {
    return owner_ != nullptr && owner_->leave == leave ? reinterpret_cast<Record*>(owner_ + 1) : nullptr;
  }
  // The caller's memory: not owned. No elements may come with a null pointer (std::vector's), and are a buffer all the
  // same: a gradient without elements is a gradient.
  static Buffer view(void* data) {
    alignas(64) static std::byte nothing[64];
    Buffer b;
    b.data_ = data != nullptr ? static_cast<std::byte*>(data) : nothing;
    return b;
  }
  Buffer(const Buffer& other) noexcept : owner_(other.owner_), data_(other.data_) {
    if (owner_ != nullptr) owner_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  Buffer(Buffer&& other) noexcept : owner_(other.owner_), data_(other.data_) {
    other.owner_ = nullptr, other.data_ = nullptr;
  }
  Buffer& operator=(Buffer other) noexcept {
    Block* const owner = owner_;
    std::byte* const data = data_;
    owner_ = other.owner_, data_ = other.data_;
    other.owner_ = owner, other.data_ = data;
    return *this;
  }
  ~Buffer() { release(); }

  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  explicit operator bool() const { return data_ != nullptr; }
  // Lives as long as a handle does; false for the caller's memory.
  bool owns() const { return owner_ != nullptr; }
  // Nobody else sees these bytes, so they may be written.
  bool exclusive() const { return owner_ != nullptr && owner_->owners.load(std::memory_order_acquire) == 1; }

 private:
  Buffer(std::size_t bytes, Block* owner) : owner_(owner), data_(reinterpret_cast<std::byte*>(owner + 1)) {
    owner_->counted = bytes;
    MemoryCount& count = memory_count();
    count.held += static_cast<std::int64_t>(bytes);
    if (count.held > count.peak) count.peak = count.held;
  }
  void release() noexcept {
    if (owner_ != nullptr && owner_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) give_back(owner_);
  }
  [[gnu::noinline]] static void give_back(Block* block) noexcept {
    memory_count().held -= static_cast<std::int64_t>(block->counted);
    if (const auto leave = block->leave; leave != nullptr) [[unlikely]] {
      block->leave = nullptr;
      leave(*block);
    }
    BlockCache::give(block);
  }

  Block* owner_ = nullptr;
  std::byte* data_ = nullptr;
};

}  // namespace shardwise::detail
