// The inside of the simulated CUDA runtime: streams that are threads, device memory that is a region of its own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <cuda_runtime_api.h>

namespace simulated_cuda {

// A point that a stream reaches.
struct Point {
  std::atomic<bool> reached{false};
  void reach() {
    reached.store(true, std::memory_order_release);
    reached.notify_all();
  }
  void wait() const { reached.wait(false, std::memory_order_acquire); }
};

// Does one task after the other on a thread of its own, each after a random delay: streams overtake each other all the time.
class Stream {
 public:
  Stream(int device, std::uint64_t seed);
  // uses_memory: it opens that of the device.
  void put(std::function<void()> task, bool uses_memory = true);
  std::shared_ptr<Point> mark();  // behind all tasks so far
  bool idle();
  int device() const { return device_; }

 private:
  [[noreturn]] void work();

  int device_;
  std::uint64_t random_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Task {
    std::function<void()> run;
    bool uses_memory;
  };
  std::deque<Task> tasks_;
  bool busy_ = false;
};

struct Event {
  int device;
  std::mutex mutex;
  std::shared_ptr<Point> point;  // null: never recorded
};

// Ranges of one region of address space. What nobody holds is filled with 0xff: NaN in every floating type, -1 in the integers.
class Memory {
 public:
  Memory(std::size_t bytes, bool for_tasks);  // for_tasks: may be shut, and is at first
  void* take(std::size_t bytes, std::uint64_t limit);  // null: no room
  bool give(void* memory);  // false: not one that was taken
  bool holds(const void* memory, std::size_t bytes);  // within one range that is taken
  bool contains(const void* memory) const;
  std::uint64_t used();
  // A task opens the memory and, at its end, closes it. Shut while no task has it open, it can be neither read nor written: a host that
  // uses a pointer of the device then falls over, as it would there. (Not after every task: it takes the system 20 us.)
  void open();
  void close();
  void shut();

 private:
  std::mutex mutex_;
  std::mutex open_mutex_;
  int open_;
  bool shut_;
  std::byte* begin_;
  std::size_t size_;
  std::map<std::byte*, std::size_t> taken_;
  std::map<std::byte*, std::size_t> free_;
  std::uint64_t used_ = 0;
};

class Machine {
 public:
  static Machine& get();
  static constexpr int devices = 4;

  Memory& memory(int device) { return *memory_[device]; }
  // Kernels of device `user` reach the memory of device `owner`.
  std::atomic<bool>& reaches(int user, int owner) { return reaches_[user][owner]; }
  Memory& pinned() { return *pinned_; }
  int device_of(const void* memory) const;  // -1: host
  std::uint64_t next_seed() { return seed_ + 0x9e3779b97f4a7c15u * ++streams_; }

  std::atomic<bool> drops_waits{false};
  std::atomic<std::int64_t> waits{0};
  std::atomic<std::uint64_t> limit{std::uint64_t{1} << 31};
  std::mutex failures_mutex;
  std::map<std::string, cudaError_t> failures;
  std::mutex streams_mutex;
  std::deque<Stream*> streams;

 private:
  Machine();
  std::unique_ptr<Memory> memory_[devices];
  std::atomic<bool> reaches_[devices][devices] = {};
  std::unique_ptr<Memory> pinned_;
  std::uint64_t seed_ = 1;
  std::atomic<std::uint64_t> streams_{0};
};

// Memory of a device that may be used until the end of the scope.
class Opened {
 public:
  explicit Opened(Memory& memory) : memory_(memory) { memory_.open(); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() { memory_.close(); }

 private:
  Memory& memory_;
};
// What waiting for a stream ends with: the memory of its device is shut, unless another task is under way.
void shut_memory_of(int device);
// That of all devices, which copies and collectives move between.
class AllOpened {
 public:
  AllOpened();
  AllOpened(const AllOpened&) = delete;
  AllOpened& operator=(const AllOpened&) = delete;
  ~AllOpened();
};

// The error that was ordered for this function, once; cudaSuccess otherwise.
cudaError_t ordered_failure(const char* name);
cudaError_t finish(cudaError_t code);  // keeps it for cudaGetLastError
int& current_device();
inline Stream* stream_of(cudaStream_t handle) { return reinterpret_cast<Stream*>(handle); }
inline Event* event_of(cudaEvent_t handle) { return reinterpret_cast<Event*>(handle); }

}  // namespace simulated_cuda
