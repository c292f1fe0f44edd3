#include "simulated_cuda/state.hpp"

#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "simulated_cuda/control.hpp"

namespace simulated_cuda {

namespace {
// On every run, before anything else.
[[maybe_unused]] const bool said = [] {
  std::fputs(
      "simulated CUDA: streams are threads, device memory is host memory, kernels run on the CPU. It shows missing waits, memory "
      "that is used too long, wrong indices, device pointers used on the host. It cannot show coalescing, races in shared memory, "
      "deadlocks of NCCL's ordering, rounding of the device's functions. No figure may be taken from it.\n",
      stderr);
  return true;
}();

std::size_t rounded(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
}  // namespace

Stream::Stream(int device, std::uint64_t seed) : device_(device), random_(seed) {
  std::thread([this] { work(); }).detach();  // for the process: a stream outlives every object
}

void Stream::put(std::function<void()> task, bool uses_memory) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back({std::move(task), uses_memory});
  changed_.notify_one();
}

std::shared_ptr<Point> Stream::mark() {
  auto point = std::make_shared<Point>();
  put([point] { point->reach(); }, false);
  return point;
}

bool Stream::idle() {
  const std::lock_guard lock(mutex_);
  return tasks_.empty() && !busy_;
}

void Stream::work() {
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      changed_.wait(lock, [this] { return !tasks_.empty(); });
      task = std::move(tasks_.front());
      tasks_.pop_front();
      busy_ = true;
    }
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    const std::uint64_t draw = random_ >> 40;
    if (draw % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(draw / 4 % 300));
    if (!task.uses_memory) {
      task.run();
      continue;
    }
    const Opened opened(Machine::get().memory(device_));
    task.run();
  }
}

Memory::Memory(std::size_t bytes, bool for_tasks) : open_(for_tasks ? 0 : 1), shut_(for_tasks), size_(bytes) {
  void* const region = mmap(nullptr, bytes, for_tasks ? PROT_NONE : PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) std::abort();
  begin_ = static_cast<std::byte*>(region);
  free_[begin_] = bytes;
}

void Memory::open() {
  const std::lock_guard lock(open_mutex_);
  ++open_;
  if (std::exchange(shut_, false) && mprotect(begin_, size_, PROT_READ | PROT_WRITE) != 0) std::abort();
}
void Memory::close() {
  const std::lock_guard lock(open_mutex_);
  --open_;
}
void Memory::shut() {
  const std::lock_guard lock(open_mutex_);
  if (open_ == 0 && !std::exchange(shut_, true) && mprotect(begin_, size_, PROT_NONE) != 0) std::abort();
}
void shut_memory_of(int device) { Machine::get().memory(device).shut(); }
AllOpened::AllOpened() {
  for (int d = 0; d < Machine::devices; ++d) Machine::get().memory(d).open();
}
AllOpened::~AllOpened() {
  for (int d = 0; d < Machine::devices; ++d) Machine::get().memory(d).close();
}

void* Memory::take(std::size_t bytes, std::uint64_t limit) {
  const std::lock_guard lock(mutex_);
  const std::size_t size = rounded(bytes);
  if (used_ + size > limit) return nullptr;
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < size) continue;
    std::byte* const at = it->first;
    if (it->second > size) free_[at + size] = it->second - size;
    free_.erase(it);
    taken_[at] = size;
    used_ += size;
    const Opened opened(*this);
    std::memset(at, 0xff, size);
    return at;
  }
  return nullptr;
}

bool Memory::give(void* memory) {
  const std::lock_guard lock(mutex_);
  const auto it = taken_.find(static_cast<std::byte*>(memory));
  if (it == taken_.end()) return false;
  const std::size_t size = it->second;
  used_ -= size;
  taken_.erase(it);
  {
    const Opened opened(*this);
    std::memset(memory, 0xff, size);
  }
  auto at = free_.emplace(static_cast<std::byte*>(memory), size).first;
  if (const auto next = std::next(at); next != free_.end() && at->first + at->second == next->first) {
    at->second += next->second;
    free_.erase(next);
  }
  if (at != free_.begin())
    if (const auto before = std::prev(at); before->first + before->second == at->first) {
      before->second += at->second;
      free_.erase(at);
    }
  return true;
}

bool Memory::contains(const void* memory) const {
  const auto* at = static_cast<const std::byte*>(memory);
  return at >= begin_ && at < begin_ + size_;
}

bool Memory::holds(const void* memory, std::size_t bytes) {
  if (!contains(memory)) return false;
  const std::lock_guard lock(mutex_);
  auto* at = static_cast<std::byte*>(const_cast<void*>(memory));
  auto it = taken_.upper_bound(at);
  if (it == taken_.begin()) return false;
  --it;
  return at + bytes <= it->first + it->second;
}

std::uint64_t Memory::used() {
  const std::lock_guard lock(mutex_);
  return used_;
}

Machine& Machine::get() {
  static auto* machine = new Machine;
  return *machine;
}

Machine::Machine() {
  for (auto& memory : memory_) memory = std::make_unique<Memory>(std::size_t{1} << 34, true);
  pinned_ = std::make_unique<Memory>(std::size_t{1} << 34, false);
  for (int d = 0; d < devices; ++d) reaches_[d][d] = true;
  if (const char* seed = std::getenv("SHARDWISE_SIMULATION_SEED")) seed_ = std::strtoull(seed, nullptr, 10);
  if (const char* drop = std::getenv("SHARDWISE_SIMULATION_DROP_WAITS")) drops_waits = std::strcmp(drop, "0") != 0;
}

int Machine::device_of(const void* memory) const {
  for (int d = 0; d < devices; ++d)
    if (memory_[d]->contains(memory)) return d;
  return -1;
}

cudaError_t ordered_failure(const char* name) {
  Machine& machine = Machine::get();
  const std::lock_guard lock(machine.failures_mutex);
  const auto it = machine.failures.find(name);
  if (it == machine.failures.end()) return cudaSuccess;
  const cudaError_t code = it->second;
  machine.failures.erase(it);
  return code;
}

int& current_device() {
  thread_local int device = 0;
  return device;
}

void drop_waits(bool drop) { Machine::get().drops_waits = drop; }
void fail_next(const char* name, cudaError_t code) {
  Machine& machine = Machine::get();
  const std::lock_guard lock(machine.failures_mutex);
  machine.failures[name] = code;
}
void limit_memory(std::uint64_t bytes) { Machine::get().limit = bytes; }
std::int64_t waits() { return Machine::get().waits; }

}  // namespace simulated_cuda
