// Arena: where the tensors of this process lie so that the other processes of the host can read them: memory without a name
// (memfd), mapped once as large as it may become, grown in place, never shrunk. Layer: backends/process.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/range_allocator.hpp>
#include <shardwise/base/buffer.hpp>
#include <shardwise/base/text.hpp>

#ifndef SHARDWISE_POISON
#if defined(__SANITIZE_ADDRESS__)
#define SHARDWISE_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHARDWISE_POISON 1
#endif
#endif
#endif
#ifdef SHARDWISE_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace shardwise::detail {

// Address space for one arena: twice the machine's memory, at most 256 GiB (the thread sanitizer allows no more), and no
// more than a file may have.
inline std::size_t arena_reserve() {
  constexpr std::size_t most = std::size_t{256} << 30, unit = std::size_t{1} << 21;
  const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
  std::size_t reserve =
      pages > 0 && bytes > 0 ? 2 * static_cast<std::size_t>(pages) * static_cast<std::size_t>(bytes) : most;
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    reserve = std::min(reserve, static_cast<std::size_t>(limit.rlim_cur));
  return std::min(reserve, most) / unit * unit;
}

// All blocks of the process come from it once `of_process` has made it. Never destroyed: a tensor may outlive everything.
// After a fork the child has a private copy of the memory as it is (its tensors stay readable, the parent's are out of
// its reach), and allocates elsewhere.
class Arena : private BlockSource {
 public:
  static constexpr std::uint64_t step = std::uint64_t{64}
                                        << 20;  // growth costs nothing: pages come when they are written

  // Null where the system forbids it: `obstacle` says why.
  static Arena* of_process(std::string& obstacle) {
    const std::lock_guard lock(making());
    Arena*& arena = current();
    if (arena != nullptr) return arena;
    auto made = std::make_unique<Arena>(arena_reserve(), obstacle);
    if (!made->mapping_) return nullptr;
    static const int watched = pthread_atfork(&before_fork, &after_fork, &in_child);
    if (watched != 0) return obstacle = "no memory for pthread_atfork", nullptr;
    arena = made.release();
    block_source.store(arena, std::memory_order_release);
    return arena;
  }

  // One of its own, for of_process and for tests. Check `works()`.
  Arena(std::size_t reserve, std::string& obstacle)
      : BlockSource{&take_block, &give_block}, file_(make_shared_memory("shardwise-arena")), ranges_(reserve) {
    if (!file_) {
      obstacle = text("memfd_create: ", system_text());
      return;
    }
    mapping_ = Mapping(file_.get(), reserve, PROT_READ | PROT_WRITE);
    if (!mapping_) obstacle = text("no ", reserve >> 20, " MiB of address space: ", system_text());
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  bool works() const { return static_cast<bool>(mapping_); }
  std::size_t reserve() const { return mapping_.bytes(); }
  // What the file has: peers may read so far.
  std::uint64_t size() const { return size_.load(std::memory_order_relaxed); }

  bool contains(const void* p) const { return mapping_.contains(p); }
  // Where `p`, which it contains, is for the others.
  std::uint64_t offset_of(const void* p) const {
    return static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - mapping_.data());
  }

  std::byte* at(std::uint64_t offset) const { return mapping_.data() + offset; }

  // `bytes` at a multiple of 64; null where nothing is left.
  void* take(std::size_t bytes) noexcept {
    try {
      const std::lock_guard lock(mutex_);
      if (copied_) return nullptr;
      const std::uint64_t where = ranges_.take(bytes);
      if (where == RangeAllocator::none) return nullptr;
      if (!grow(ranges_.end())) {
        ranges_.give(where, bytes);
        return nullptr;
      }
      std::byte* const memory = mapping_.data() + where;
#ifdef SHARDWISE_POISON
      __asan_unpoison_memory_region(memory, bytes);
#endif
      return memory;
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }

  // What `take(bytes)` gave. Memory beyond what is worth keeping goes back to the system.
  void give(void* memory, std::size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    if (copied_) return;
#ifdef SHARDWISE_POISON
    __asan_poison_memory_region(memory, bytes);
#endif
    const IdleRange idle = ranges_.give(offset_of(memory), bytes);
    if (idle.bytes == 0) return;
    // Where the system cannot, the memory stays: it is used again.
    const int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const int done = fallocate(file_.get(), how, static_cast<off_t>(idle.at), static_cast<off_t>(idle.bytes));
    static_cast<void>(done);
  }

  // For the other processes: they can map it for reading only. (Without /proc the descriptor could do more than they do.)
  Descriptor share() const {
    const std::string path = text("/proc/self/fd/", file_.get());
    const int read_only = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    return Descriptor(read_only >= 0 ? read_only : fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
  }

 private:
  // The arena of the process, and who may look at it.
  static Arena*& current() {
    static Arena* arena = nullptr;
    return arena;
  }
  static std::mutex& making() {
    static std::mutex mutex;
    return mutex;
  }

  static void* take_block(BlockSource& self, std::size_t bytes) noexcept {
    return static_cast<Arena&>(self).take(bytes);
  }
  static void give_block(BlockSource& self, void* memory, std::size_t bytes) noexcept {
    static_cast<Arena&>(self).give(memory, bytes);
  }

  bool grow(std::uint64_t needed) {
    const std::uint64_t has = size();
    if (needed <= has) return true;
    const std::uint64_t wanted = std::min<std::uint64_t>((needed + step - 1) / step * step, reserve());
    if (ftruncate(file_.get(), static_cast<off_t>(wanted)) != 0) return false;
    size_.store(wanted, std::memory_order_relaxed);
    return true;
  }

  // A fork: no other thread is inside while it happens.
  static void before_fork() noexcept {
    making().lock();
    if (current() != nullptr) current()->mutex_.lock();
  }
  static void after_fork() noexcept {
    if (current() != nullptr) current()->mutex_.unlock();
    making().unlock();
  }
  static void in_child() noexcept {
    if (Arena* const parents = current()) {
      // What is used of it: a system that does not overcommit counts private memory at once, MAP_NORESERVE or not.
      if (const std::uint64_t used = parents->size(); used > 0)
        mmap(parents->at(0), used, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
             parents->file_.get(), 0);
      parents->copied_ = true;
      block_source.store(nullptr);
      parents->mutex_.unlock();
      current() = nullptr;
    }
    making().unlock();
  }

  Descriptor file_;
  Mapping mapping_;
  std::mutex mutex_;
  RangeAllocator ranges_;
  std::atomic<std::uint64_t> size_{0};
  bool copied_ = false;
};

// The arena of another process, for reading.
class PeerArena {
 public:
  PeerArena() = default;
  PeerArena(const Descriptor& file, std::size_t reserve) : mapping_(file.get(), reserve, PROT_READ) {
    if (mapping_) madvise(mapping_.data(), mapping_.bytes(), MADV_DONTDUMP);
  }
  const std::byte* data() const { return mapping_.data(); }
  explicit operator bool() const { return static_cast<bool>(mapping_); }

 private:
  Mapping mapping_;
};

}  // namespace shardwise::detail
