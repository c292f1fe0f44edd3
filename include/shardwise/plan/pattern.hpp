// Path patterns: Python's fnmatch atom by atom, on Unicode code points, evaluated at compile time. Holds no rules and
// no styles. Loops over characters throughout: g++ 12 with -fsanitize=undefined takes no string_view::find over plan
// text as a constant expression. Layer: plan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shardwise {

/// Which of the decimal indices "0", "1", ..., "10", ... an atom matches.
enum class IndexMatch : std::uint8_t { none, all, some };

namespace detail {

struct CodePoint {
  std::uint32_t value;
  std::size_t length;  // bytes, at least 1
};

// The code point that begins at `at`; a byte that begins none stands for itself, above all code points.
constexpr CodePoint code_point(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t lead = byte(at);
  if (lead < 0x80u) return {lead, 1};
  const std::size_t length = lead >= 0xf0u && lead < 0xf8u ? 4 : lead >= 0xe0u ? 3 : 2;
  if (lead < 0xc0u || lead >= 0xf8u || at + length > text.size()) return {0x110000u + lead, 1};
  std::uint32_t value = lead & (length == 4 ? 0x07u : length == 3 ? 0x0fu : 0x1fu);
  for (std::size_t i = 1; i < length; ++i) {
    const std::uint32_t next = byte(at + i);
    if ((next & 0xc0u) != 0x80u) return {0x110000u + lead, 1};
    value = (value << 6) | (next & 0x3fu);
  }
  return {value, length};
}

// What one element of a pattern other than a star accepts, and where the next element begins.
struct PatternElement {
  std::size_t next = 0;
  std::uint32_t literal = 0;
  std::size_t set_begin = 0;  // a set holds the characters of [set_begin, set_end)
  std::size_t set_end = 0;
  bool any = false;
  bool is_set = false;
  bool negated = false;
};

constexpr PatternElement pattern_element(std::string_view pattern, std::size_t at) {
  PatternElement element;
  if (pattern[at] == '?') {
    element.any = true;
    element.next = at + 1;
    return element;
  }
  if (pattern[at] == '[') {
    std::size_t begin = at + 1;
    const bool negated = begin < pattern.size() && pattern[begin] == '!';
    if (negated) ++begin;
    // A bracket that closes at once is a member; without a closing one, '[' is an ordinary character.
    for (std::size_t end = begin + 1; end < pattern.size(); ++end) {
      if (pattern[end] != ']') continue;
      element.is_set = true;
      element.negated = negated;
      element.set_begin = begin;
      element.set_end = end;
      element.next = end + 1;
      return element;
    }
  }
  const CodePoint c = code_point(pattern, at);
  element.literal = c.value;
  element.next = at + c.length;
  return element;
}

constexpr bool accepts(std::string_view pattern, const PatternElement& element, std::uint32_t character) {
  if (element.any) return true;
  if (!element.is_set) return element.literal == character;
  bool found = false;
  // Python cuts a set at its hyphens, from the second character on and two characters after the last cut: what the
  // hyphen joins is a range, and a range that descends contains nothing.
  for (std::size_t i = element.set_begin; i < element.set_end && !found;) {
    const CodePoint low = code_point(pattern, i);
    i += low.length;
    if (i + 1 < element.set_end && pattern[i] == '-') {
      const CodePoint high = code_point(pattern, i + 1);
      found = low.value <= character && character <= high.value;
      i += 1 + high.length;
    } else {
      found = low.value == character;
    }
  }
  return found != element.negated;
}

constexpr std::size_t atom_end(std::string_view path) {
  std::size_t end = 0;
  while (end < path.size() && path[end] != '.') ++end;
  return end;
}

}  // namespace detail

/// The part of `path` before its first dot; all of it where there is none. Dots in brackets separate too.
constexpr std::string_view first_atom(std::string_view path) { return path.substr(0, detail::atom_end(path)); }

/// The part of `path` after its first dot; empty where there is none.
constexpr std::string_view rest_after_first_atom(std::string_view path) {
  const std::size_t end = detail::atom_end(path);
  return end < path.size() ? path.substr(end + 1) : std::string_view();
}

/// Whether `pattern` matches the whole of `name` as Python's `fnmatch.fnmatchcase` does: `*` any run, `?` one code
/// point, `[seq]`, `[!seq]`, ranges; anything else literally. Dots are ordinary characters here. One slip of CPython is
/// not copied: there `[c-a!x]`, whose descending range is dropped, reads as `[!x]`.
constexpr bool match_atom(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0;
  // Where to go on when the characters after the last star do not fit: that star takes one more.
  bool starred = false;
  std::size_t star_p = 0, star_n = 0;
  while (true) {
    if (p < pattern.size() && pattern[p] == '*') {
      starred = true;
      star_p = ++p;
      star_n = n;
      continue;
    }
    if (p == pattern.size() && n == name.size()) return true;
    if (p < pattern.size() && n < name.size()) {
      const detail::PatternElement element = detail::pattern_element(pattern, p);
      const detail::CodePoint c = detail::code_point(name, n);
      if (detail::accepts(pattern, element, c.value)) {
        p = element.next;
        n += c.length;
        continue;
      }
    }
    if (!starred || star_n == name.size()) return false;
    star_n += detail::code_point(name, star_n).length;
    p = star_p;
    n = star_n;
  }
}

/// Whether `pattern` and `name` have the same number of atoms and each atom matches. The empty pattern is the module
/// itself and matches the empty name alone: no wildcard reaches it. So `layers.` is `layers`, as in PyTorch: what remains
/// of it below `layers` is the empty pattern.
constexpr bool match_path(std::string_view pattern, std::string_view name) {
  while (!pattern.empty() && !name.empty()) {
    if (!match_atom(first_atom(pattern), first_atom(name))) return false;
    pattern = rest_after_first_atom(pattern);
    name = rest_after_first_atom(name);
  }
  return pattern.empty() && name.empty();
}

/// Whether `atom` matches no index of a list, every one, or tells indices apart. Read off the atom's elements: a star
/// and at most one element, which takes every digit, is `all`; an element that takes no digit is `none`; so is an
/// atom of a zero and more digits. What is left is `some`, whether or not a list is long enough to show it.
constexpr IndexMatch match_indices(std::string_view atom) {
  bool starred = false, takes_every_digit = true, begins_with_zero_alone = false;
  int elements = 0;
  for (std::size_t at = 0; at < atom.size();) {
    if (atom[at] == '*') {
      starred = true;
      ++at;
      continue;
    }
    const detail::PatternElement element = detail::pattern_element(atom, at);
    int digits = 0;
    for (std::uint32_t digit = '0'; digit <= '9'; ++digit) digits += detail::accepts(atom, element, digit) ? 1 : 0;
    if (digits == 0) return IndexMatch::none;
    if (digits < 10) takes_every_digit = false;
    if (elements == 0 && at == 0) begins_with_zero_alone = digits == 1 && detail::accepts(atom, element, '0');
    ++elements;
    at = element.next;
  }
  if (starred && elements <= 1 && takes_every_digit) return IndexMatch::all;
  if (elements == 0) return IndexMatch::none;  // the empty atom
  if (begins_with_zero_alone && elements > 1) return IndexMatch::none;  // no index begins with a zero but 0
  return IndexMatch::some;
}

}  // namespace shardwise
