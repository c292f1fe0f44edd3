// Name: a string that can be a template argument. Axis names, child names and path patterns are all
// this one type. Does not own memory; at most 63 characters, more is a compile error.
// Layer: base.
#pragma once

#include <cstddef>
#include <string_view>

namespace shardwise {

/// A string of at most 63 characters that can be a template argument: `Child<Scope, "net1", nn::Linear>`.
///
/// The characters are padded with spaces up to a final NUL: clang prints any other content of a template
/// argument as a list of numbers. One non-template type, because nvcc 13 silently fails to deduce a
/// class template's arguments here. A name never ends with a space.
struct Name {
  static constexpr std::size_t capacity = 63;

  char text[capacity + 1];

  constexpr Name() : text{} { pad(0); }

  template <std::size_t N>
  consteval Name(const char (&literal)[N]) : text{} {  // NOLINT: a literal is a name
    static_assert(N <= capacity + 1, "shardwise::Name: [N1] at most 63 characters; shorten the name");
    for (std::size_t i = 0; i + 1 < N; ++i) text[i] = literal[i];
    pad(N - 1);
  }

  /// From characters known to fit; longer input is cut (checked by the callers that build names).
  constexpr explicit Name(std::string_view s) : text{} {
    const std::size_t n = s.size() < capacity ? s.size() : capacity;
    for (std::size_t i = 0; i < n; ++i) text[i] = s[i];
    pad(n);
  }

  constexpr std::size_t size() const {
    std::size_t n = capacity;
    while (n > 0 && text[n - 1] == ' ') --n;
    return n;
  }
  constexpr bool empty() const { return size() == 0; }
  constexpr std::string_view view() const { return {text, size()}; }

  friend constexpr bool operator==(const Name& a, const Name& b) {
    for (std::size_t i = 0; i < capacity; ++i)
      if (a.text[i] != b.text[i]) return false;
    return true;
  }

 private:
  constexpr void pad(std::size_t from) {
    for (std::size_t i = from; i < capacity; ++i) text[i] = ' ';
    text[capacity] = '\0';
  }
};

/// `a + '_' + b`, the name of a flattened axis (PyTorch: `DeviceMesh._flatten` joins with "_").
constexpr Name join_names(const Name& a, const Name& b) {
  Name joined(a.view());
  std::size_t n = a.size();
  if (n > 0 && n < Name::capacity) joined.text[n++] = '_';
  for (std::size_t i = 0; i < b.size() && n < Name::capacity; ++i) joined.text[n++] = b.text[i];
  return joined;
}

}  // namespace shardwise
