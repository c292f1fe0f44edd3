// Descriptor: an open file that is closed with its owner. Mapping: memory that is unmapped with its owner.
// Layer: backends/process.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <shardwise/backends/process/own_process.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Descriptor() { close(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// What the system said last.
[[gnu::cold]] inline std::string system_text() { return std::strerror(errno); }

class Mapping {
 public:
  Mapping() = default;
  // Null where the system refuses. Forked children do not have it.
  Mapping(int fd, std::size_t bytes, int protection) {
    void* at = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) return;
    madvise(at, bytes, MADV_DONTFORK);
    at_ = static_cast<std::byte*>(at);
    bytes_ = bytes;
  }
  Mapping(Mapping&& other) noexcept
      : at_(std::exchange(other.at_, nullptr)), bytes_(std::exchange(other.bytes_, std::size_t{0})) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping() {
    if (at_ != nullptr && process_.here()) munmap(at_, bytes_);  // in a forked child something else may lie there
  }

  std::byte* data() const { return at_; }
  std::size_t bytes() const { return bytes_; }
  explicit operator bool() const { return at_ != nullptr; }
  bool contains(const void* p) const {
    const auto* byte = static_cast<const std::byte*>(p);
    return byte >= at_ && byte < at_ + bytes_;
  }

 private:
  std::byte* at_ = nullptr;
  std::size_t bytes_ = 0;
  OwnProcess process_;
};

// Memory without a name that can be handed to other processes and dies with its last user; it cannot shrink under
// their feet. Nothing (errno says why) where the system refuses.
inline Descriptor make_shared_memory(const char* name) {
#ifdef MFD_NOEXEC_SEAL
  constexpr unsigned never_run = MFD_NOEXEC_SEAL;
#else
  constexpr unsigned never_run = 8;
#endif
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | never_run);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);  // before Linux 6.3
  if (fd >= 0) fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
  return Descriptor(fd);
}

}  // namespace shardwise::detail
