// Ranks that are processes, for tests: forked from the test, bounded in time, what they found goes back as text. Nothing of
// doctest is used in them.
#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shardwise/base/error.hpp>

#include "process/patience.hpp"

namespace test {

// That right(i) holds for each i below n; the sentence is only made for one that does not.
template <class Right>
void expect_each(std::size_t n, Right right, std::string_view what) {
  for (std::size_t i = 0; i < n; ++i)
    if (!right(i)) expect(false, std::string(what) + ": element " + std::to_string(i));
}

// One T that all processes forked after it share.
template <class T>
class SharedBetween {
 public:
  SharedBetween()
      : value_(new(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) T()) {}
  ~SharedBetween() { munmap(static_cast<void*>(value_), sizeof(T)); }
  SharedBetween(const SharedBetween&) = delete;
  SharedBetween& operator=(const SharedBetween&) = delete;
  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  T* value_;
};

// What forked ranks have in common, as a rank knows it.
struct ForkedRun {
  std::atomic<int>* arrived = nullptr;
  const std::atomic<bool>* failed = nullptr;  // a rank's check
  int ranks = 0;
  int meetings = 0;
};
inline ForkedRun& forked_run() {
  static ForkedRun run;
  return run;
}

// Waits for what another process sets. In a rank, throws once a check of another has failed.
template <class Ready>
void wait_until(Ready ready, const char* what) {
  const std::atomic<bool>* const failed = forked_run().failed;
  wait_until(ready, what, [&] { return failed != nullptr && failed->load(); });
  if (!ready()) throw std::runtime_error(std::string("not waited for, since another rank's check has failed: ") + what);
}

// Returns when all forked ranks have come here, whatever is between them of what is tested.
inline void meet_all() {
  ForkedRun& run = forked_run();
  run.arrived->fetch_add(1);
  const int all = ++run.meetings * run.ranks;
  wait_until([&] { return run.arrived->load() >= all; }, "the other ranks");
}

// Descriptors that this process has open.
inline int open_descriptors() {
  int n = 0;
  DIR* const folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++n;
  closedir(folder);
  return n;
}

inline int inheritable_descriptors() {
  int n = 0;
  for (int fd = 0; fd < 1000; ++fd) n += fcntl(fd, F_GETFD) == 0;
  return n;
}

// n processes. Rank r's last word is empty where its function came to an end, "killed by signal 9", or what it threw.
class ForkedRanks {
 public:
  template <class F>
  ForkedRanks(int n, F f) {
    std::fflush(nullptr);
    for (int r = 0; r < n; ++r) {
      const pid_t pid = fork();
      if (pid == 0) run(r, n, f);
      pids_.push_back(pid);
    }
  }
  ~ForkedRanks() {
    for (const pid_t pid : pids_)
      if (pid > 0) kill(pid, SIGKILL), waitpid(pid, nullptr, 0);
  }
  ForkedRanks(const ForkedRanks&) = delete;
  ForkedRanks& operator=(const ForkedRanks&) = delete;

  // Until ready(), or a rank's check has failed: its last words say which.
  template <class Ready>
  void until(Ready ready, const char* what) const {
    wait_until(ready, what, [&] { return said_->failed.load(); });
  }

  bool ended(int rank) const {
    siginfo_t how{};
    waitid(P_PID, static_cast<id_t>(pids_[static_cast<std::size_t>(rank)]), &how, WEXITED | WNOHANG | WNOWAIT);
    return how.si_pid != 0;
  }
  void send(int rank, int signal) const { kill(pids_[static_cast<std::size_t>(rank)], signal); }

  // Of each rank, when it has ended; one that does not end in time is killed.
  std::vector<std::string> last_words(std::chrono::seconds limit = 2 * hang) {
    std::vector<std::string> words;
    const auto end = std::chrono::steady_clock::now() + limit;
    for (std::size_t r = 0; r < pids_.size(); ++r) {
      int status = 0;
      while (waitpid(pids_[r], &status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() > end) {
          kill(pids_[r], SIGKILL);
          waitpid(pids_[r], &status, 0);
          words.push_back("did not end in time");
          break;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      pids_[r] = -1;
      if (words.size() > r) continue;
      if (WIFSIGNALED(status)) {
        words.push_back("killed by signal " + std::to_string(WTERMSIG(status)));
      } else if (WEXITSTATUS(status) == 0) {
        words.emplace_back();
      } else {
        const std::string said(said_->text[r]);
        words.push_back(said.empty() ? "exit code " + std::to_string(WEXITSTATUS(status)) : said);
      }
    }
    return words;
  }

 private:
  struct Said {
    std::atomic<int> arrived{0};
    std::atomic<bool> failed{false};
    char text[64][2000] = {};
  };

  template <class F>
  void run(int rank, int n, F& f) {
    int code = 0;
    forked_run() = {&said_->arrived, &said_->failed, n, 0};
    try {
      f(rank);
    } catch (const std::exception& e) {
      std::strncpy(said_->text[rank], e.what(), sizeof said_->text[rank] - 1);
      said_->failed = true;
      code = 1;
    }
    std::fflush(nullptr);
    _exit(code);
  }

  SharedBetween<Said> said_;
  std::vector<pid_t> pids_;
};

// What all of them said, "" if nothing went wrong anywhere.
inline std::string said_by(const std::vector<std::string>& words) {
  std::string all;
  for (std::size_t r = 0; r < words.size(); ++r)
    if (!words[r].empty()) all += "rank " + std::to_string(r) + ": " + words[r] + "\n";
  return all;
}

template <class F>
std::string run_forked(int n, F f) {
  return said_by(ForkedRanks(n, f).last_words());
}

}  // namespace test
