// text(...): a message made of pieces, joined out of line. Sums of std::string at each place that may throw were a large
// part of a small program's code. Layer: base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include <shardwise/base/extents.hpp>

namespace shardwise::detail {

// A piece of a message: words, a number, sizes. Refers to what it is made of.
class Piece {
 public:
  constexpr Piece(const char* s) : Piece(std::string_view(s)) {}  // NOLINT: pieces are written as they stand
  constexpr Piece(std::string_view s) : data_(s.data()), number_(static_cast<std::int64_t>(s.size())), kind_(words) {}
  Piece(const std::string& s) : Piece(std::string_view(s)) {}
  template <class I>
    requires std::is_integral_v<I>
  constexpr Piece(I n) : number_(static_cast<std::int64_t>(n)), kind_(whole) {}
  constexpr Piece(double x) : real_(x), kind_(real) {}
  constexpr Piece(const Extents& e) : data_(e.size), number_(e.rank), kind_(sizes) {}
  template <std::size_t R>
  constexpr Piece(const Shape<R>& s) : data_(s.data()), number_(static_cast<std::int64_t>(R)), kind_(sizes) {}

  [[gnu::cold]] void append_to(std::string& out) const {
    if (kind_ == words) {
      append_words(out, static_cast<const char*>(data_), static_cast<std::size_t>(number_));
    } else if (kind_ == whole) {
      append_number(out, number_);
    } else if (kind_ == real) {
      char digits[400];  // of the largest double, with six decimals
      std::snprintf(digits, sizeof digits, "%f", real_);
      append_words(out, digits, std::strlen(digits));
    } else {
      out.push_back('[');
      for (std::int64_t i = 0; i < number_; ++i) {
        if (i > 0) append_words(out, ", ", 2);
        append_number(out, static_cast<const std::int64_t*>(data_)[i]);
      }
      out.push_back(']');
    }
  }

 private:
  static void append_words(std::string& out, const char* first, std::size_t count) { out.append(first, count); }
  [[gnu::noinline, gnu::cold]] static void append_number(std::string& out, std::int64_t n) {
    char digits[24];
    char* first = digits + sizeof digits;
    // In unsigned arithmetic: the smallest number has no positive counterpart.
    auto rest = n < 0 ? 0 - static_cast<std::uint64_t>(n) : static_cast<std::uint64_t>(n);
    do *--first = static_cast<char>('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (n < 0) *--first = '-';
    append_words(out, first, static_cast<std::size_t>(digits + sizeof digits - first));
  }

  enum Kind : unsigned char { words, whole, real, sizes };
  const void* data_ = nullptr;
  union {
    std::int64_t number_;
    double real_;
  };
  Kind kind_;
};

[[gnu::noinline, gnu::cold]] inline std::string join(const Piece* pieces, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) pieces[i].append_to(out);
  return out;
}

// Lives no longer than the full expression that it is written in.
template <std::size_t N>
struct Text {
  Piece pieces[N];
  operator std::string() const { return join(pieces, N); }  // NOLINT: a message is a string where one is asked for
};

template <class... X>
[[gnu::always_inline]] constexpr Text<sizeof...(X)> text(const X&... pieces) {
  return {{Piece(pieces)...}};
}

inline std::string to_string(const Extents& e) { return text(e); }

}  // namespace shardwise::detail

namespace shardwise {

/// "[12, 10]".
template <std::size_t R>
std::string to_string(const Shape<R>& shape) {
  return detail::text(shape);
}

namespace detail {
using shardwise::to_string;  // else hidden in here by the overloads above
}  // namespace detail

}  // namespace shardwise
