// StoreValues: the keys and values of a store, and who waits for which. Layer: backends/process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardwise::detail {

template <class Connection>
class StoreValues {
 public:
  struct Waiter {
    Connection* connection;
    std::uint64_t request;
  };

  // `most_bytes`: of keys and values together.
  explicit StoreValues(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  // Null where the key has not been set.
  const std::string* find(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
  }

  // False, and nothing has changed, where there is no room.
  bool set(std::string_view key, std::string_view value) {
    const std::string* const before = find(key);
    const std::size_t bytes = bytes_ + value.size() + (before == nullptr ? key.size() : 0);
    const std::size_t freed = before == nullptr ? 0 : before->size();
    if (bytes - freed > most_bytes_) return false;
    bytes_ = bytes - freed;
    values_[std::string(key)] = value;
    return true;
  }

  void wait(std::string_view key, Waiter waiter) { waiters_[std::string(key)].push_back(waiter); }
  // Those that waited for the key; they do not any more.
  std::vector<Waiter> take_waiters(std::string_view key) {
    const auto found = waiters_.find(key);
    if (found == waiters_.end()) return {};
    std::vector<Waiter> all = std::move(found->second);
    waiters_.erase(found);
    return all;
  }
  template <class Which>
  void forget(Which which) {
    for (auto& [key, waiters] : waiters_) std::erase_if(waiters, which);
  }

 private:
  const std::size_t most_bytes_;
  std::size_t bytes_ = 0;
  std::map<std::string, std::string, std::less<>> values_;
  std::map<std::string, std::vector<Waiter>, std::less<>> waiters_;
};

}  // namespace shardwise::detail
