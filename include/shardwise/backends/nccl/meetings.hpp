// Meetings: how often this rank has called for each rank of its group, and how often those called for it that have left in peace. Both
// sides count a call alike, so that who waits for a rank that will not come is told, without a word from NCCL. Layer: backends/nccl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardwise/base/text.hpp>

namespace shardwise::detail {

class Meetings {
 public:
  void begin(int size) { met_.assign(static_cast<std::size_t>(size), 0); }
  void with_all() {
    for (std::uint64_t& count : met_) ++count;
  }
  void with(int rank) { ++met_[static_cast<std::size_t>(rank)]; }

  // What this rank, `rank` of the group `id`, has to say when it leaves: a line.
  std::string words(std::uint64_t id, int rank) const {
    std::string words = text("nccl ", id, " ", rank);
    for (const std::uint64_t count : met_) words += text(" ", count);
    return words + "\n";
  }
  // What `world_rank` had to say, if there is a line about this group.
  void left(int world_rank, std::uint64_t id, std::string_view words) {
    const std::string own = text("nccl ", id, " ");
    const std::size_t begin = words.find(own);
    if (begin == std::string_view::npos) return;
    const std::string line(words.substr(begin + own.size(), words.find('\n', begin) - begin - own.size()));
    char* at = nullptr;
    Left left{world_rank, std::strtoull(line.c_str(), &at, 10), {}};
    while (*at != 0) left.met.push_back(std::strtoull(at, &at, 10));
    if (left.met.size() == met_.size() && left.rank < met_.size()) left_.push_back(std::move(left));
  }
  // The world's number of a rank that left before it met `rank`, this one, as often as this one asked for; -1: none.
  int missed(int rank) const {
    for (const Left& left : left_)
      if (left.met[static_cast<std::size_t>(rank)] < met_[left.rank]) return left.world_rank;
    return -1;
  }

 private:
  struct Left {
    int world_rank;
    std::uint64_t rank;  // in the group
    std::vector<std::uint64_t> met;
  };
  std::vector<std::uint64_t> met_;
  std::vector<Left> left_;
};

}  // namespace shardwise::detail
