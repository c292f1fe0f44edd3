// WaitSignal: sleep until another thread changes something, with a deadline: spin, yield, then a futex (a mutex and
// a condition variable elsewhere). SharedWaitSignal: the same between processes, in memory that they share; Linux only.
// What changed is the caller's business. Layer: comm.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#if defined(__linux__)
#include <climits>
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif

namespace shardwise::detail {

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// What to do before sleeping. Spinning pays only where every rank has a core of its own.
struct Patience {
  int spins;
  int yields;
};

inline Patience patience_for(int threads) {
  static const unsigned cores = std::thread::hardware_concurrency();
  return static_cast<unsigned>(threads) <= cores ? Patience{1000, 0} : Patience{0, 10};
}

using WaitClock = std::chrono::steady_clock;

// A limit on all waits of one call together. The clock is first read when the call has to sleep.
class WaitLimit {
 public:
  explicit WaitLimit(std::chrono::milliseconds limit) : limit_(limit) {}

  WaitClock::duration left() {
    const auto now = WaitClock::now();
    if (!started_) end_ = now + limit_;
    started_ = true;
    return end_ - now;
  }

 private:
  std::chrono::milliseconds limit_;
  WaitClock::time_point end_{};
  bool started_ = false;
};

// All zeros is a signal that nobody waits for: in shared memory it need not be made.
template <bool BetweenProcesses>
class alignas(64) BasicWaitSignal {
 public:
  // After the change: wakes all who wait. No system call where nobody sleeps.
  // The waiter counts itself before it reads the word, the waker moves the word before it reads the count; all of it
  // is seq_cst, so at least one of them sees the other.
  void notify() noexcept {
    word_.fetch_add(1);
    if (sleepers_.load() != 0) wake();
  }

  // True once ready() holds, false if it does not within the limit. ready() reads atomics only.
  template <class Ready>
  bool wait(Ready ready, Patience patience, WaitLimit& limit) {
    if (come_soon(ready, patience)) return true;
    const Sleeper count(sleepers_);
    for (;;) {
      const std::uint32_t seen = word_.load();
      if (ready()) return true;
      const auto left = limit.left();
      if (left <= WaitClock::duration::zero()) return false;
      sleep(seen, left);
    }
  }

  // Returns once ready() holds, however long that takes.
  template <class Ready>
  void wait(Ready ready, Patience patience) {
    for (;;) {
      WaitLimit limit(std::chrono::hours(1));
      if (wait(ready, patience, limit)) return;
    }
  }

 private:
  struct Sleeper {
    std::atomic<std::uint32_t>& count;
    explicit Sleeper(std::atomic<std::uint32_t>& c) : count(c) { count.fetch_add(1); }
    ~Sleeper() { count.fetch_sub(1); }
  };

  template <class Ready>
  static bool come_soon(Ready& ready, Patience patience) {
    if (ready()) return true;
    for (int i = 0; i < patience.spins; ++i) {
      cpu_pause();
      if (ready()) return true;
    }
    for (int i = 0; i < patience.yields; ++i) {
      std::this_thread::yield();
      if (ready()) return true;
    }
    return false;
  }

#if defined(__linux__)
  static_assert(sizeof(std::atomic<std::uint32_t>) == 4, "a futex is four bytes");

  static constexpr int wait_operation = BetweenProcesses ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE;
  static constexpr int wake_operation = BetweenProcesses ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE;

  void sleep(std::uint32_t seen, WaitClock::duration left) {
    const auto ns = std::chrono::nanoseconds(left).count();
    timespec time{};
    time.tv_sec = static_cast<decltype(time.tv_sec)>(ns / 1000000000);
    time.tv_nsec = static_cast<decltype(time.tv_nsec)>(ns % 1000000000);
    syscall(SYS_futex, &word_, wait_operation, seen, &time, nullptr, 0);
  }
  void wake() noexcept { syscall(SYS_futex, &word_, wake_operation, INT_MAX, nullptr, nullptr, 0); }
#else
  static_assert(!BetweenProcesses, "shardwise: processes wait for each other on a futex, which is Linux's");

  void sleep(std::uint32_t seen, WaitClock::duration left) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, left, [&] { return word_.load() != seen; });
  }
  void wake() noexcept {
    {
      const std::lock_guard lock(mutex_);
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
#endif

  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

using WaitSignal = BasicWaitSignal<false>;
using SharedWaitSignal = BasicWaitSignal<true>;

}  // namespace shardwise::detail
