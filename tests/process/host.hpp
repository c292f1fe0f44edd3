// Forked ranks of one host, each with what it knows of the others. For tests.
#pragma once

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <shardwise/backends/process/host_setup.hpp>
#include <shardwise/backends/process/shared_group.hpp>

#include "process/forked.hpp"

namespace test {

using namespace std::chrono_literals;

// A store in memory that the forked ranks share.
class ForkedStore : public shardwise::detail::KeyValueStore {
 public:
  void set(std::string_view key, std::string value) override {
    const int i = table_->used.fetch_add(1);
    std::strcpy(table_->key[i], std::string(key).c_str());
    std::strcpy(table_->value[i], value.c_str());
    table_->ready[i].store(true);
  }
  std::string get(std::string_view key, std::chrono::milliseconds deadline) override {
    const auto end = std::chrono::steady_clock::now() + deadline;
    for (;;) {
      for (int i = 0; i < 100; ++i)
        if (table_->ready[i].load() && key == table_->key[i]) return table_->value[i];
      if (std::chrono::steady_clock::now() > end) throw shardwise::TimeoutError("no " + std::string(key));
      std::this_thread::sleep_for(200us);
    }
  }

 private:
  struct Table {
    std::atomic<int> used{0};
    std::atomic<bool> ready[100] = {};
    char key[100][100] = {};
    char value[100][200] = {};
  };
  SharedBetween<Table> table_;
};

// One rank of a world that lives on this host, once it has met the others.
struct HostRank {
  int rank;
  int size;
  std::shared_ptr<shardwise::detail::SharedHost> host;
  std::shared_ptr<shardwise::detail::SharedGroup> group;

  shardwise::detail::Caller me(std::chrono::milliseconds deadline = hang) const { return {rank, {}, deadline}; }
};

inline HostRank meet(ForkedStore& store, int rank, int size, std::chrono::milliseconds deadline = hang) {
  std::vector<int> all;
  for (int r = 0; r < size; ++r) all.push_back(r);
  std::string obstacle;
  HostRank mine{rank, size, shardwise::detail::meet_on_host(store, "host", all, rank, size, deadline, obstacle), {}};
  expect(mine.host != nullptr, "shared memory, but: " + obstacle);
  mine.group = shardwise::detail::SharedGroup::of_host(mine.host);
  return mine;
}

// f(HostRank) on n forked ranks, each departing at its end: what went wrong, "" if nothing.
template <class F>
std::string run_on_host(int n, F f) {
  return patiently([&] {
    ForkedStore store;
    return run_forked(n, [&](int rank) {
      const HostRank mine = meet(store, rank, n);
      f(mine);
      mine.host->depart();
    });
  });
}

// What a call throws, with its kind: "TimeoutError: ...".
template <class F>
std::string thrown_by(F f) {
  try {
    f();
  } catch (const shardwise::TimeoutError& e) {
    return std::string("TimeoutError: ") + e.what();
  } catch (const shardwise::MismatchError& e) {
    return std::string("MismatchError: ") + e.what();
  } catch (const shardwise::PeerFailedError& e) {
    return std::string("PeerFailedError: ") + e.what();
  } catch (const std::exception& e) {
    return std::string("another: ") + e.what();
  }
  return "nothing";
}

}  // namespace test
