// RangeAllocator: gives parts of [0, limit): where they are, not what is in them. Small ones by size class, large ones in
// whole pages, best fit, neighbours merged. Knows which free pages still hold memory. Layer: backends/process.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace shardwise::detail {

// A part of a file: pages whose memory may go back to the system.
struct IdleRange {
  std::uint64_t at = 0;
  std::uint64_t bytes = 0;
};

// Not thread-safe. Free memory below what `kept_idle` says is kept, as the next block wants it.
class RangeAllocator {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  static constexpr std::uint64_t page = 4096;
  static constexpr std::uint64_t largest_small = 32 * 1024;
  static constexpr std::uint64_t kept_idle = std::uint64_t{64} << 20;

  explicit RangeAllocator(std::uint64_t limit) : limit_(limit / page * page) {}

  // `none` where nothing is left.
  std::uint64_t take(std::uint64_t bytes) {
    if (bytes > largest_small) return bytes > limit_ ? none : take_pages(whole_pages(bytes));
    const std::size_t c = class_of(bytes);
    std::vector<std::uint64_t>& free = small_[c];
    if (free.empty() && !refill(free, size_of(c))) return none;
    const std::uint64_t at = free.back();
    free.pop_back();
    return at;
  }

  // What `take(bytes)` gave. Gives pages that hold more memory than is kept.
  IdleRange give(std::uint64_t at, std::uint64_t bytes) {
    if (bytes <= largest_small) {
      small_[class_of(bytes)].push_back(at);
      return {};
    }
    return give_pages(at, whole_pages(bytes));
  }

  // Everything taken so far lies before it.
  std::uint64_t end() const { return end_; }

 private:
  struct Span {
    std::uint64_t bytes;
    std::uint64_t held;  // of these at most so many hold memory
  };

  static constexpr std::size_t classes = 16 + 5 * 4;  // multiples of 64 up to 1024, then four a doubling

  static std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + page - 1) / page * page; }

  static std::size_t class_of(std::uint64_t bytes) {
    if (bytes <= 1024) return bytes <= 64 ? 0 : static_cast<std::size_t>((bytes - 1) / 64);
    const auto power = static_cast<std::uint64_t>(std::bit_width(bytes - 1)) - 1;  // 2^power < bytes <= 2^(power + 1)
    const std::uint64_t quarter = (bytes - 1 - (std::uint64_t{1} << power)) >> (power - 2);
    return static_cast<std::size_t>(16 + (power - 10) * 4 + quarter);
  }
  static std::uint64_t size_of(std::size_t c) {
    if (c < 16) return (c + 1) * 64;
    const std::uint64_t power = 10 + (c - 16) / 4;
    return (std::uint64_t{1} << power) + ((c - 16) % 4 + 1) * (std::uint64_t{1} << (power - 2));
  }

  // Pages of small blocks stay such.
  bool refill(std::vector<std::uint64_t>& free, std::uint64_t size) {
    const std::uint64_t count = std::max<std::uint64_t>(4, 64 * 1024 / size);
    const std::uint64_t at = take_pages(whole_pages(count * size));
    if (at == none) return false;
    for (std::uint64_t i = count; i-- > 0;) free.push_back(at + i * size);
    return true;
  }

  std::uint64_t take_pages(std::uint64_t bytes) {
    const auto fits = by_size_.lower_bound({bytes, 0});
    if (fits == by_size_.end()) return take_last(bytes);
    const std::uint64_t at = fits->second;
    const auto where = spans_.find(at);
    const Span span = where->second;
    remove(where);
    if (span.bytes > bytes) add(at + bytes, {span.bytes - bytes, std::min(span.held, span.bytes - bytes)});
    return at;
  }

  // From behind everything, beginning with what is free there.
  std::uint64_t take_last(std::uint64_t bytes) {
    const auto last = spans_.empty() ? spans_.end() : std::prev(spans_.end());
    const bool open = last != spans_.end() && last->first + last->second.bytes == end_;
    const std::uint64_t at = open ? last->first : end_;
    if (limit_ - at < bytes) return none;
    if (open) remove(last);
    end_ = at + bytes;
    return at;
  }

  IdleRange give_pages(std::uint64_t at, std::uint64_t bytes) {
    Span span{bytes, bytes};
    auto next = spans_.lower_bound(at);
    if (next != spans_.end() && next->first == at + bytes) {
      span.bytes += next->second.bytes, span.held += next->second.held;
      next = remove(next);
    }
    if (next != spans_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second.bytes == at) {
        span.bytes += before->second.bytes, span.held += before->second.held;
        at = before->first;
        remove(before);
      }
    }
    const bool release = idle_ + span.held > kept_idle;
    if (release) span.held = 0;
    add(at, span);
    return release ? IdleRange{at, span.bytes} : IdleRange{};
  }

  using Spans = std::map<std::uint64_t, Span>;
  void add(std::uint64_t at, Span span) {
    by_size_.insert({span.bytes, at});
    spans_.emplace(at, span);
    idle_ += span.held;
  }
  Spans::iterator remove(Spans::iterator which) {
    by_size_.erase({which->second.bytes, which->first});
    idle_ -= which->second.held;
    return spans_.erase(which);
  }

  const std::uint64_t limit_;
  std::uint64_t end_ = 0;
  std::uint64_t idle_ = 0;
  Spans spans_;  // free pages, by where they are
  std::set<std::pair<std::uint64_t, std::uint64_t>> by_size_;
  std::vector<std::uint64_t> small_[classes];
};

}  // namespace shardwise::detail
